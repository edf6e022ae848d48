# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The two calls of an ASGI application: receive() and send() of events, without a Python frame per message.

Events of messages are made and read here. All others, and all before the connection is open, are passed to methods that
`asyncio.asgi.AsgiConnection` defines; asgi.pyi lists them. What must not live here: the states of an application, messages
and waiting (messages.pyx).
"""

import asyncio
import inspect

cimport cython
from cpython.bytes cimport PyBytes_CheckExact
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF

from tidegate._core.messages cimport CREATED, DELEGATED, EVENT, SEND, Awaitable, MessageChannel
from tidegate._core.writer cimport CONNECTING, OPEN


cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object o)


cdef extern from "messages.h":
    bint tg_is_small(PyObject *payload)
    PyObject *tg_stop_iteration(PyObject *value, bint small)
    void tg_set_next_slot(PyTypeObject *type, void *next)
    void tg_free_as_base(PyTypeObject *type)


@cython.final
cdef class Receive(Awaitable):
    """What receive() returns: the event of the next message, or of the end, which comes again and again."""

    cdef int recv_step(self, PyObject **result) except -1:
        cdef MessageChannel channel = <MessageChannel> self.channel
        if self.stage == CREATED:
            if channel._state == CONNECTING or channel._receives_in_python:
                return self.leave_to(channel._receive_apart(), result)
            if (channel.reader is not NULL or channel.next_readers) and self.argument is None:
                return self.leave_to(receive_in_turn(channel), result)
        if (channel.discarding or channel._receives_in_python) and not channel.readable(False):
            return self.end_of_messages(result)  # known before the TCP connection is closed
        return Awaitable.recv_step(self, result)

    cdef int leave_to(self, object inner, PyObject **result) except -1:
        self.inner = inner
        self.stage = DELEGATED
        return self.delegate(None, result)

    cdef object take(self):
        cdef object payload = self.channel.pop_message(None)
        self.argument = payload
        if PyUnicode_CheckExact(payload):
            return {"type": "websocket.receive", "text": payload}
        return {"type": "websocket.receive", "bytes": payload}

    cdef int end_of_messages(self, PyObject **result) except -1:
        cdef object event = self.channel._end_event()
        Py_INCREF(event)
        result[0] = <PyObject *> event
        return 1

    cdef void end(self) noexcept:
        cdef MessageChannel channel = <MessageChannel> self.channel
        cdef bint reading = channel is not None and channel.reader is <PyObject *> self
        Awaitable.end(self)
        if reading and channel.next_readers:
            give_turn(channel)


@cython.final
cdef class Send(Awaitable):
    """What send() returns."""

    cdef int send_step(self, PyObject **result) except -1:
        cdef object payload = None
        if self.stage == CREATED:
            if self.channel._state == OPEN:
                payload = payload_of(self.argument)
            if payload is None:
                self.inner = self.channel._send_event(self.argument)
                self.stage = DELEGATED
                return self.delegate(None, result)
            self.argument = payload
        return Awaitable.send_step(self, result)


cdef object TYPE = "type"
cdef object TEXT = "text"
cdef object BYTES = "bytes"
cdef object known_type = None  # the last "websocket.send" that was met: an application's is the same each time


cdef inline object payload_of(object event):
    """Return the payload of an event that sends a message; None for another event, and for one that is not plain.

    Keys are compared by identity, as those of a display in a program have it: others are for Python.
    """
    global known_type
    cdef object payload = None
    cdef PyObject *key
    cdef PyObject *value
    cdef Py_ssize_t at = 0
    cdef bint sends = False
    if not PyDict_CheckExact(event):
        return None
    while PyDict_Next(event, &at, &key, &value):
        if key is <PyObject *> TYPE:
            if value is not <PyObject *> known_type:
                if not PyUnicode_CheckExact(<object> value) or <object> value != "websocket.send":
                    return None
                known_type = <object> value
            sends = True
        elif value is <PyObject *> None:
            continue
        elif payload is None and key is <PyObject *> TEXT and PyUnicode_CheckExact(<object> value):
            payload = <object> value
        elif payload is None and key is <PyObject *> BYTES and PyBytes_CheckExact(<object> value):
            payload = <object> value
        else:
            return None
    return payload if sends else None


cdef int give_turn(MessageChannel channel) except -1:
    """Let the next call of receive() go on that waits for its turn."""
    turn = channel.next_readers[0]
    if not turn.done():
        turn.set_result(None)
    return 0


async def receive_in_turn(MessageChannel channel):
    """Receive after the calls of receive() that were before."""
    turn = channel.loop.create_future()
    if channel.next_readers is None:
        channel.next_readers = []
    channel.next_readers.append(turn)
    try:
        await turn
        return await made(channel, True)
    finally:
        channel.next_readers.remove(turn)
        if channel.next_readers and channel.reader is NULL:
            give_turn(channel)


@cython.binding(True)
def receive(channel):
    """Receive the next event of the connection.

    Args:
        channel: of the connection, which this is bound to.
    """
    return made(channel, None)


@cython.binding(True)
def send(channel, event):
    """Send an event.

    Args:
        channel: of the connection, which this is bound to.
        event: as the specification of ASGI has it.
    """
    global known
    cdef Send call
    if type(channel) is not known:
        known = type(<MessageChannel?> channel)
    call = Send.__new__(Send)
    call.channel = <MessageChannel> channel
    call.kind = SEND
    call.argument = event
    return call


cdef object known = None  # a class that is known to be a subclass of MessageChannel


cdef inline Receive made(object channel, object turn):
    """Make a call of receive(); `turn`: it has had to wait for its turn."""
    global known
    cdef Receive call
    if type(channel) is not known:
        known = type(<MessageChannel?> channel)
    call = Receive.__new__(Receive)
    call.channel = <MessageChannel> channel
    call.kind = EVENT
    call.argument = turn
    return call


for function in (receive, send):
    getattr(inspect, "markcoroutinefunction", id)(function)
    function._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)  # what CPython 3.11 looks at


cdef PyObject *next_event(PyObject *self) except? NULL:
    cdef PyObject *result = NULL
    if (<Receive> self).step(None, &result):
        return tg_stop_iteration(result, tg_is_small(<PyObject *> (<Receive> self).argument))
    return result


tg_set_next_slot(<PyTypeObject *> Receive, <void *> next_event)
tg_free_as_base(<PyTypeObject *> Receive)
tg_free_as_base(<PyTypeObject *> Send)
