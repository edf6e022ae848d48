"""The parent of the daemon's processes: listeners, signals, poll, handle (a child as its parent sees it), supervisor.

What must not live here: WebSocket, the application, an event loop.
"""
