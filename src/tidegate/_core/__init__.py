"""The native hot path, from the socket to the handler and back.

    poller        the epoll set of an event loop
    listener      a listening socket, whose connections become streams
    stream        a connected socket, as asyncio's transport
    write_buffer  the way out of a stream: bytes that the socket does not take yet
    handshake     opening handshakes of plain requests
    channel       what a transport calls: reads, parsed turn by turn
    parser        bytes to frames
    inbox         frames that wait to be read, and the task that waits for them
    messages      recv(), send() and iteration, without a Python frame; messages.pyi lists all calls in and out
    asgi          receive() and send() of ASGI events
    writer        messages framed, gathered and written
    turns         the share of the event loop that a connection, or a task, has before others have their turn
    waiter        the future that a reading task waits on
    deflate       permessage-deflate of one connection
    broadcast     one message to many connections
    members       the connections in a channel of the bus
    wire          masking keys; and headers, masking, UTF-8 for native code
    counters      what a process counts, in a row
    scoreboard    all rows, in shared memory
    snapshot      one consistent read of it
    load          connections of a load generator
    scanner       what their servers send
    timer         when the next message is due
    histogram     what it measures
    topic         a channel in the hub: where its messages are, who is subscribed
    journal       the history of all channels, in a file that outlives its writer
    hub_link      a link of the hub to one process: its buffers
    switch        messages from link to link, through the journal
    link_reader   frames of the hub as they come in a worker
    parent        ends a process after its parent has ended

What must not live here: anything rarer than a message.
"""
