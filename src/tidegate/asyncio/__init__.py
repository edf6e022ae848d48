"""The asyncio driver: connections, the server, broadcasting. The only place of the package where an event loop runs.

    server               serve(), and the server that it returns
    server_connection    its side of a connection: opening handshake, handler
    registry             the connections of one server
    admission            which connections may come in, as a verdict
    transport_setup      what comes before HTTP: PROXY header, TLS
    router               route()
    auth                 basic_auth()
    access_log           a line for each handshake, and for each connection that ends
    client               connect(), and its side of a connection
    dialer               how a client reaches a server
    tunnel               the way through a proxy
    connection           either side of an open connection: the documented methods
    sender               what is sent and is not simple
    fragments            what send() is given, as fragments
    broadcast            broadcast()
    options              limits and timeouts, checked once
    deadlines            one timer for all connections
    waiters              tasks that wait for one event of a connection
    logger               what `websocket.logger` adds to a record
    tcp_info             what the kernel knows of a TCP connection

What must not live here: processes, signals, command lines.
"""
