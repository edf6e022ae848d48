"""The asyncio driver: servers, clients, their connections, broadcasting, channels.

The rules of the protocol, which do no I/O, are at the root of the package.

    server               serve(), the server that it returns, and its connections
    listening            accepting connections, with streams of ours or transports of the loop
    server_connection    their opening handshake, handler and end
    request_body         connections whose request may have a body, for hooks that answer it
    registry             the connections of one server
    admission            admission control: which connections may come in
    transport_setup      what comes before HTTP: PROXY header, TLS
    router               route()
    auth                 basic_auth()
    access_log           a line for each handshake, HTTP request and end of a connection
    asgi                 connections that are served to ASGI applications
    asgi_headers         headers of their events
    scope                what an application is told of a connection
    http_service         HTTP of ASGI applications
    lifespan             their lifespan
    client               connect(), and its side of a connection
    dialer               reaching a server
    tunnel               tunnels through proxies
    connection           either side of an open connection: the documented methods
    sender               sending what is not one simple frame
    fragments            arguments of send()
    broadcast            broadcast()
    channels             publish(), subscribe(), history(), members(), presence(), leave_members(), close_members()
    membership           connections as members of channels
    enveloped            members that use the subprotocol for browsers
    channel_handler      channel_handler(), javascript() and tidegate.js
    options              settings of connections, checked once
    deadlines            one timer for all connections
    waiters              tasks that wait for one event of a connection
    logger               the extra of `websocket.logger`
    tcp_info             state of a TCP connection that the kernel knows

What must not live here: processes, signals, command lines.
"""
