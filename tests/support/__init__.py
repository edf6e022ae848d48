"""What tests share: daemons, the other side of a connection, limits of time, and how a run is spread over processes.

    harness       a real `tidegate serve`, observed from outside; waiting for a condition
    wire          RFC 6455 as bytes: the one codec of frames and handshakes
    rawpeer       clients and servers of raw bytes in an event loop
    rawclient     a client of raw bytes without one
    proxies       HTTP and SOCKS proxies
    redis_server  Redis servers, sentinels, and a relay before one of them
    systemd       the service manager's side: a notify socket, sockets that are handed over
    nats_server   a nats-server of a test's own
    nats_jwt      whom a nats-server in operator mode lets in
    programs      functions as programs: each runs in a process of its own
    coroutines    waiting in an event loop, exceptions as values
    patience      limits of time, in one place
    hangs         a test that hangs is told by name, and its process ends
    parallel      which processes a run has, and in which order tests run
    cache         what tests need from other ecosystems, installed once
    trace         which functions of the package are entered

What must not live here: test cases but those of these helpers; what a single folder of tests uses alone.
"""
