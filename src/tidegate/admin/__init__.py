"""The admin process: an HTTP server of its own that reads the scoreboard, so that a busy worker cannot hide.

    main             the process's life
    admission        admission control: how many connections, and for how long
    publish          POST /publish
    authorization    who may ask: the token, and the origins of web pages
    routes           paths and what answers them
    health           /livez and /readyz
    status           /status
    bus              the bus and the hub, of both
    live             /live: the numbers of each second
    quantiles        of histograms
    events           /live: what has happened, in words
    feed             /live: the connections that it is sent to

What must not live here: anything that changes the daemon, beyond what is published to its channels; what is measured
(metrics).
"""
