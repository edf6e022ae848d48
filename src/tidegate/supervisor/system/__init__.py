"""The daemon towards the machine: its user, its pid file, its service manager, its processors.

    daemon          limits, pid file, user, preload, in their order at the start
    pidfile         one daemon per pid file
    privileges      switching to another user, and giving it files
    sd_notify       what systemd is told
    cpu_affinity    which processor a worker runs on

What must not live here: workers, sockets.
"""
