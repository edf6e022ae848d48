import asyncio
import socket

STREAMS: bool

class Receiver: ...

class Stream(asyncio.Transport):
    loop: asyncio.AbstractEventLoop

def adopt(loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol) -> Stream: ...
