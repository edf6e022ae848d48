"""The life of a worker process.

    main            a worker's life, top to bottom
    loader          the application
    fresh           imports of what is there now
    tls             certificates
    admission       limits and trusted proxies, from the settings
    self_metrics    what a worker measures of itself
    drain           its end: connections are closed over a window

What must not live here: forking and watching (supervisor), the protocol (asyncio).
"""
