"""The life of a worker process: main (top to bottom), loader (the application), drain (its end), pipe (its words).

What must not live here: forking and watching (supervisor), the protocol (asyncio).
"""
