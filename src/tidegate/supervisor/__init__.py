"""The parent of the daemon's processes.

    supervisor       from binding to the exit status: signals, readiness, shutdown
    pool             slots and their children
    hub              the hub's slot, its journal, and its links to workers
    declarations     what workers say that the application declares of channels
    worker_handle    a child as its parent sees it
    operations       reload, scale, recycle, drain: one at a time
    upgrade          the program replaced, in its process
    health           heartbeats, and the limits of a worker's life
    counters         what the supervisor counts in the scoreboard
    control          the control socket
    signals          signals as bytes in a pipe
    event_loop       the event loop: file descriptors and timers
    auto_reload      a reload whenever a file of the application has changed
    file_watcher     the process that notices changes
    multiproc_dir    the folder of the application's metrics
    sockets/         addresses, listeners, accept queues
    system/          pid file, user, systemd, processors

What must not live here: WebSocket, the application, an event loop.
"""
