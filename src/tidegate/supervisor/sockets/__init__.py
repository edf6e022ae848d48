"""The listening sockets of a daemon: from addresses to the queues that workers accept from.

    addresses        what an address stands for on this machine; the sockets of the admin address
    activation       sockets that systemd has passed
    listener         one address: a socket for each slot, or one for all
    listeners        all addresses, whose sockets are kept from worker to worker
    reuseport        which slot's socket the kernel gives a connection to (SO_REUSEPORT)
    address_lock     what keeps a second daemon by accident from an address
    accept_queues    queues of slots without a worker, and which worker accepts from them

What must not live here: processes, signals.
"""
