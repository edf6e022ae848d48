"""The asyncio driver: connections, the server, broadcasting. The only place of the package where an event loop runs.

What must not live here: processes, signals, command lines.
"""
