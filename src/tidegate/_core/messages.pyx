# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""Awaiting messages: recv(), send() and iteration over a channel, without a Python frame per message.

All calls between native code and Python are listed in messages.pyi. What must not live here: bytes, frames, wake-ups.
"""

import asyncio
import inspect

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from tidegate._core.waiter cimport Waiter
from tidegate._core.writer cimport BEGUN, CLOSED, DECLINED, OPEN


cdef extern from "Python.h":
    int PyErr_WarnFormat(PyObject *category, Py_ssize_t stack_level, const char *format, ...)
    void PyErr_WriteUnraisable(PyObject *where)
    PyObject *PyExc_RuntimeWarning
    ctypedef enum PySendResult:
        PYGEN_RETURN, PYGEN_ERROR, PYGEN_NEXT


cdef extern from "messages.h":
    bint tg_is_small(PyObject *payload)
    PyObject *tg_stop_iteration(PyObject *value, bint small)
    void tg_set_awaitable_slots(PyTypeObject *type, void *next, void *send)


# Its name, by its kind.
cdef const char **NAMES = [
    "Connection.recv", "Connection.__anext__", "Connection._recv_frame", "Connection.send", "Connection._end_step",
    "Connection.send", "receive",
]


@cython.no_gc_clear  # otherwise channel.reader would outlive it
@cython.freelist(64)
cdef class Awaitable:
    """What recv() and send() return: it behaves as a coroutine, since gather() and wait_for() would never start a future."""

    def __dealloc__(self):
        if self.stage == CREATED and PyErr_WarnFormat(
            PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", NAMES[self.kind]
        ) < 0:
            PyErr_WriteUnraisable(NULL)
        if self.stage != ENDED:
            self.give_up()

    def __repr__(self):
        return f"<coroutine object {self.__qualname__} at {<size_t> <PyObject *> self:#x}>"

    # The interface of a coroutine, for asyncio, debuggers and task listings.

    @property
    def __qualname__(self):
        return NAMES[self.kind].decode()

    @property
    def __name__(self):
        return self.__qualname__.rpartition(".")[2]

    @property
    def cr_running(self):
        return False  # no other code runs while it does

    @property
    def cr_suspended(self):
        return self.stage == WAITING or self.stage == DELEGATED

    @property
    def cr_await(self):
        return self.channel.waiter.future if self.stage == WAITING else self.inner

    cr_frame = None
    cr_code = None
    cr_origin = None

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on with a value: return what to wait for, or raise StopIteration with the result."""
        cdef PyObject *result = NULL
        cdef int ended = self.step(value, &result)
        value = <object> result
        Py_XDECREF(result)
        if ended:
            raise StopIteration(value)
        return value

    def throw(self, kind, value=None, traceback=None):
        """Go on with an exception."""
        if self.stage == DELEGATED:
            return self.inner.throw(kind) if value is None and traceback is None else self.inner.throw(kind, value, traceback)
        if self.stage == ENDED:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self.give_up()
        if isinstance(kind, type):
            kind = kind() if value is None else value if isinstance(value, kind) else kind(value)
        raise kind.with_traceback(traceback) if traceback is not None else kind

    def close(self):
        """End it."""
        inner = self.inner
        self.give_up()
        if inner is not None:
            inner.close()

    cdef int step(self, object value, PyObject **result) except -1:
        """Go on. Return 1 with the value in `result`, or 0 with what to wait for."""
        cdef int ended = -1  # by an exception
        try:
            if self.stage == DELEGATED:
                ended = self.delegate(value, result)
            elif self.stage == ENDED:
                raise RuntimeError("cannot reuse already awaited coroutine")
            elif self.kind == SEND:
                ended = self.send_step(result)
            elif self.kind == COMPRESSED_SEND:
                ended = self.compress_step(result)
            elif self.kind == TURN:
                self.channel.check()
                ended = self.end_step(result)
            else:
                ended = self.recv_step(result)
        finally:
            if ended:
                self.end()
        return ended

    cdef int recv_step(self, PyObject **result) except -1:
        cdef Channel channel = self.channel
        cdef object value
        cdef uint8_t opcode
        cdef bint fin
        cdef bint frames = self.kind == FRAME
        if self.stage == CREATED:
            if channel is None:
                raise TypeError("it is made by recv(), and by nothing else")
            channel.check()
            if channel.reader is not NULL or (channel._streaming and not frames):
                raise channel._concurrent_read(frames)
            channel.ask()
            if channel.readable(frames) and channel.turns.used_up():
                self.wait(frames, result)
                channel.reader_yielded = True
                channel.turns.join(channel)
                return 0
        if channel._state == CLOSED and channel.chunk is not None and not channel.readable(frames):
            channel.reader = <PyObject *> self
            channel.reader_takes_frames = frames
            channel.read_rest()
        if channel.readable(frames):
            if frames:
                payload = channel.pop_frame(&opcode, &fin)
                value = (payload, opcode, fin)
            else:
                try:
                    value = self.take()
                except UnicodeDecodeError as exc:
                    self.end()
                    self.inner = channel._recv_undecodable(exc)
                    self.stage = DELEGATED
                    return self.delegate(None, result)
            Py_INCREF(value)
            result[0] = <PyObject *> value
            return 1
        if channel._state == CLOSED:
            return self.end_of_messages(result)
        self.wait(frames, result)
        if channel.no_room and not channel.must_wait():
            channel.find_room()  # for the rest of a message that has more frames than max_queue
        return 0

    cdef object take(self):
        """Take the message that waits, as this awaitable returns it."""
        return self.channel.pop_message(self.argument)

    cdef int end_of_messages(self, PyObject **result) except -1:
        """End: the connection is closed, and no message waits."""
        raise self.channel._closed_exception(self.kind == ITERATION)

    cdef int wait(self, bint frames, PyObject **result) except -1:
        """Be the channel's reader, and wait to be woken."""
        cdef Channel channel = self.channel
        if channel.waiter is None:
            channel.waiter = Waiter.of(channel.loop)
        result[0] = channel.waiter.arm()
        channel.reader = <PyObject *> self
        channel.reader_takes_frames = frames
        self.stage = WAITING
        return 0

    cdef int send_step(self, PyObject **result) except -1:
        cdef Channel channel = self.channel
        cdef int sent
        if self.stage == WAITING:  # for its turn, with the message written
            return self.end_step(result)
        channel.check()
        sent = channel.send_message(self.argument, self.text)
        if sent == BEGUN:
            channel.compression.sender = <PyObject *> self
            self.kind = COMPRESSED_SEND
            return self.compress_step(result)
        if sent == DECLINED:
            self.inner = channel._send_slowly(self.argument, self.text)
        elif channel._write_paused:
            self.inner = channel._drain()
        else:
            return self.end_step(result)
        self.stage = DELEGATED
        return self.delegate(None, result)

    cdef int compress_step(self, PyObject **result) except -1:
        """Compress a message piece by piece, over as many turns as that takes, and send it.

        Another call of send() meanwhile finishes it; if this call is cancelled before that, nothing of it is sent.
        """
        cdef Channel channel = self.channel
        if self.stage == WAITING:
            channel.yielded_writers -= 1
            self.stage = CREATED
        while channel.compression is not None and channel.compression.sender is <PyObject *> self:
            if channel._state != OPEN:
                channel.give_up_message()
                self.inner = channel._send_slowly(self.argument, self.text)  # which says how it ended
                self.stage = DELEGATED
                return self.delegate(None, result)
            if not channel.compress() and channel.turns.used_up():
                return self.pass_turn(result)
        if channel._write_paused:
            self.inner = channel._drain()
            self.stage = DELEGATED
            return self.delegate(None, result)
        return self.end_step(result)

    cdef int pass_turn(self, PyObject **result) except -1:
        """Wait for the next turn, with something written or to be written."""
        cdef Waiter waiter = Waiter.of(self.channel.loop)
        result[0] = waiter.arm()
        self.channel.turns.join(waiter)
        self.channel.yielded_writers += 1
        self.stage = WAITING
        return 0

    cdef int end_step(self, PyObject **result) except -1:
        """Return None, in the next turn if this one's budget is used up."""
        if self.stage == CREATED and self.channel.turns.used_up():
            return self.pass_turn(result)
        Py_INCREF(None)
        result[0] = <PyObject *> None
        return 1

    cdef int delegate(self, object value, PyObject **result) except -1:
        """Let a Python coroutine do the rest."""
        cdef int ended = 0
        try:
            value = self.inner.send(value)
        except StopIteration as stop:
            value = stop.value
            ended = 1
        Py_INCREF(value)
        result[0] = <PyObject *> value
        return ended

    cdef void give_up(self) noexcept:
        """End, unless garbage collection has begun to, without having been woken: the future may be cancelled."""
        if self.channel is not None and self.channel.reader is <PyObject *> self and self.channel.waiter is not None:
            self.channel.waiter.future = None
        self.end()

    cdef void end(self) noexcept:
        if self.channel is not None and self.channel.reader is <PyObject *> self:
            self.channel.reader = NULL
            self.channel.reader_yielded = False
        elif self.stage == WAITING:
            self.channel.yielded_writers -= 1
        if self.kind == COMPRESSED_SEND and self.channel.compression is not None:
            if self.channel.compression.sender is <PyObject *> self:
                self.channel.give_up_message()
        self.stage = ENDED
        self.inner = None


cdef PyObject *next_slot(PyObject *self) except? NULL:
    cdef PyObject *result = NULL
    if (<Awaitable> self).step(None, &result):
        return tg_stop_iteration(result, tg_is_small(result))
    return result


cdef PySendResult send_slot(PyObject *self, PyObject *value, PyObject **result) except PYGEN_ERROR:
    return PYGEN_RETURN if (<Awaitable> self).step(<object> value, result) else PYGEN_NEXT


tg_set_awaitable_slots(<PyTypeObject *> Awaitable, <void *> next_slot, <void *> send_slot)


cdef class MessageChannel(Channel):
    """The native part of a connection: a channel whose messages are awaited."""

    @cython.binding(True)
    def recv(self, decode=None):
        """Receive the next message, whole: str if it is text, bytes if it is binary (RFC 6455 5.6).

        Cancelling is safe: no message is lost. Messages that came before the connection was closed can still be
        received after that.

        Args:
            decode: True for str, False for bytes, whatever the message is; by default what the message is.

        Raises:
            ConnectionClosed: when the connection is closed and all messages have been received; ConnectionClosedOK or
                ConnectionClosedError.
            ConcurrencyError: when another coroutine is in recv() or recv_streaming().
        """
        return awaitable(self, MESSAGE, decode)

    @cython.binding(True)
    def send(self, message, text=None):
        """Send a message: text if it is str, binary if it is bytes, bytearray or memoryview (RFC 6455 5.6).

        It waits as long as more than `write_limit` bytes are in the write buffer; when it returns, the other side need
        not have the message yet. The items of an iterable or an asynchronous iterable are sent as the fragments of one
        message (RFC 6455 5.4), for whose end other sends wait; an empty one sends nothing. A message that was begun and
        cannot be ended, because the iterable fails or the call is cancelled, ends the connection with code 1011.

        Args:
            message: the message, or its fragments.
            text: True to send bytes as text, which they must be in UTF-8, False to send str as binary; by default as
                the type says.

        Raises:
            ConnectionClosed: when the connection is closed.
            TypeError: for a message of another type, for a dict, and for fragments of mixed types.
        """
        cdef Awaitable made = awaitable(self, SEND, message)
        made.text = text
        return made

    def __aiter__(self):
        if type(self).recv is not recv:
            return self._iterate()  # a subclass has its own recv(), which is what iterates
        cdef Messages messages = Messages.__new__(Messages)
        messages.channel = self
        return messages

    def __anext__(self):
        return awaitable(self, ITERATION, None)

    @cython.binding(True)
    def _recv_frame(self):
        """Receive the next frame, as (payload, opcode, fin), for recv_streaming()."""
        return awaitable(self, FRAME, None)

    @cython.binding(True)
    def _end_step(self):
        """Let others have their turn, if the caller has used up its own: for methods that write without waiting."""
        return awaitable(self, TURN, None)


cdef object recv = MessageChannel.recv

# Tools that inspect the class, as unittest.mock does, find that these return awaitables.
for method in (MessageChannel.recv, MessageChannel.send, MessageChannel._recv_frame, MessageChannel._end_step):
    getattr(inspect, "markcoroutinefunction", id)(method)
    method._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)  # what CPython 3.11 looks at


@cython.final
cdef class Messages:
    """The iterator of `async for`. It is apart from the connection, since slots of Python subclasses are slower.

    It has the methods of an asynchronous generator, which contextlib.aclosing() and others call.
    """

    def __aiter__(self):
        return self

    def __anext__(self):
        self.begun = True
        return no_more() if self.closed else awaitable(self.channel, ITERATION, None)

    def asend(self, value):
        """Receive the next message; `value` is not used.

        Raises:
            TypeError: for another value than None before the first message.
        """
        if value is not None and not self.begun:
            raise TypeError("can't send non-None value to a just-started async generator")
        return self.__anext__()

    def athrow(self, kind, value=None, traceback=None):
        """Raise an exception at the iterator's place, which ends it."""
        self.closed = True
        if isinstance(kind, type):
            kind = kind() if value is None else value if isinstance(value, kind) else kind(value)
        return raising(kind if traceback is None else kind.with_traceback(traceback))

    def aclose(self):
        """End the iterator. The connection stays open."""
        self.closed = True
        return nothing()


async def no_more():
    raise StopAsyncIteration


async def raising(exception):
    raise exception


async def nothing():
    return None


cdef object known = None  # a class that is known to be a subclass of MessageChannel


cdef inline Awaitable awaitable(object channel, uint8_t kind, object argument):
    cdef Awaitable made
    global known
    if type(channel) is not known:  # methods with a Python signature do not check the type of self
        known = type(<MessageChannel?> channel)
    made = Awaitable.__new__(Awaitable)
    made.channel = <MessageChannel> channel
    made.kind = kind
    made.argument = argument
    return made
