"""What belongs to a process of the operating system, whichever of the daemon's processes it is.

    streams         its standard input, output and error
    forks           what a child gets that an application forks from it
    surroundings    what an application that is imported may change of it
    place           the directory that it is in, by its name
    proc            what /proc tells of one process
    peer            the process at the other end of a socket
    cgroup          how many processors its control groups allow

What must not live here: what any of the processes is for.
"""
