"""The bus: channels that connections of all workers join, over engines that are chosen by their URL.

    base         what an engine promises: nine verbs
    policies     each channel's policy, and what is checked at the door

What must not live here: frames of WebSocket, which members are given (asyncio/), processes.
"""
