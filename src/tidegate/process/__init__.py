"""A process and the operating system: what all processes of the daemon have in common.

    streams              its standard input, output and error
    forks                what a child inherits that the application forks
    surroundings         what importing an application may change in the process
    working_directory    the working directory, by its name
    proc                 what /proc tells of one process
    peer                 the process at the other end of a socket
    cgroup               how many processors its control groups allow

What must not live here: the purpose of a process.
"""
