"""What the machine asks of a daemon, and gives it.

    daemon          first of all: limits, pid file, user, standard streams
    pidfile         one daemon per pid file
    privileges      becoming another user; files that are to be theirs
    sd_notify       what systemd is told
    cpu_affinity    which processor a worker has

What must not live here: workers, sockets.
"""
