"""The native hot path, from the socket to the handler and back.

    channel      what asyncio calls: reads, parsed turn by turn
    parser       bytes to frames
    inbox        frames that wait to be read, and who waits for them
    messages     recv(), send() and iteration, awaited without a frame of Python's
    writer       messages framed, gathered and written
    turns        how long a connection, or a task, has the event loop before the others have their turn
    waiter       the future that a reading task waits on
    deflate      permessage-deflate of one connection
    broadcast    one message to many connections
    wire         headers, masking keys, UTF-8
    counters     what a process counts, in a row
    scoreboard   every row, in shared memory
    snapshot     one consistent read of it
    parent       the end of a process whose parent has gone

What must not live here: anything rarer than a message.
"""
