"""The bus: channels that connections of all workers join, over engines that are chosen by their URL.

    bus          the channels of one process on its event loop
    sharing      the bus of an event loop
    subscription     an iterator over a channel's messages
    base         what an engine promises: nine verbs
    local        the engine of one machine: a link to the hub
    link         the frames between the hub and those who are linked to it; link_protocol, how they come and go
    link_protocol    a link on an event loop
    link_state       channels and calls of a link
    links            where links come from
    policies     each channel's policy, and what is checked at the door
    topics       the channels of a worker, above whatever engine: subscriptions, turns to read, checks
    topic        one of them: members, joins, what was missed
    order        its messages in order, each once; repairs
    records      what a bus counts, measures and logs
    tail         its last messages
    members      who is given messages
    presence     who is in which channel, by name, and what members are told of it
    attendance   tells and asks the engine for it
    orders       what processes tell each other about members
    connect      the engine that a URL names
    redis        redis://, between machines
    redis_url        what its URLs say
    redis_link       a link to a server that was found and checked
    redis_connection     its two connections
    redis_scripts    what runs within the server
    redis_messages   messages and channels as Redis has them
    redis_presence   who is where, as Redis has it
    declaration  what an application declares, in words for other processes
    outside      a bus in a process that is none of its workers
    watch        whether messages come over a link, and when a lost one is tried again
    memory       memory://, within one process
    nats         nats://, over a server of NATS
    nats_url         what its URL says
    nats_link        a connection
    nats_channel     a channel: how far it has come, and its order
    nats_streams     what is stored, and that it is there
    nats_reads       what a read gives of it
    nats_presence    who is where, as processes tell each other
    nats_words       subjects, and heads of messages
    envelope     the subprotocol for browsers

What must not live here: frames of WebSocket, which members are given (asyncio/), processes.
"""
