# cython: language_level=3, boundscheck=False, wraparound=False
# cython: embedsignature=True, embedsignature.format=clinic
"""One message to many channels: framed once, compressed once for each set of parameters, the same bytes for all.

A message that is compressed without context can be sent to all connections, if the compressor of each starts anew after it
(RFC 7692 section 7.2.1): the next message then refers to nothing that a receiver lacks. What must not live here: the
connections that cannot take it so, which are returned.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from tidegate._core.channel cimport Channel
from tidegate._core.deflate cimport Deflate
from tidegate._core.counters cimport TG_SENT, tg_count_bytes, tg_count_message
from tidegate._core.wire cimport TG_HEADER_MAX, tg_build_header
from tidegate._core.writer cimport BINARY, OPEN, TEXT


cdef bytes frame(uint8_t first, bytes payload):
    """Return an unmasked frame."""
    cdef uint8_t head[14]
    cdef Py_ssize_t n = PyBytes_GET_SIZE(payload)
    cdef Py_ssize_t size = tg_build_header(head, first, n, 0)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size + n)
    memcpy(PyBytes_AS_STRING(made), head, size)
    memcpy(PyBytes_AS_STRING(made) + size, PyBytes_AS_STRING(payload), n)
    return made


cdef bytes compressed(Deflate deflate, bytes payload):
    """Compress a message without context, with the parameters of a connection."""
    cdef Deflate alone = Deflate(True, True, 15, deflate.local_max_window_bits, deflate.compress_settings)
    return alone.compress(payload)


def broadcast(connections, uint8_t opcode, bytes payload not None):
    """Send a whole message to every open connection that can take it at once.

    Return the open connections that cannot (in the middle of a fragmented message, above `write_limit`, a client, logged
    or with other extensions), and pairs (connection, exception) of those whose transport raised.
    """
    cdef Channel channel
    if opcode != TEXT and opcode != BINARY:
        raise ValueError(f"a message is text (1) or binary (2), not {opcode}")
    cdef bytes plain = frame(0x80 | opcode, payload)
    cdef bytes data
    cdef dict shared = {}
    cdef list rest = [], failures = []
    for connection in connections:
        channel = <Channel?> connection  # not None either
        if channel._state != OPEN or channel.write is None:
            continue
        channel.check()
        if channel._sending or channel._slow or channel.client or channel._write_paused:
            rest.append(connection)
            continue
        if channel.deflate is None:
            data = plain
        else:
            key = (channel.deflate.local_max_window_bits, id(channel.deflate.compress_settings))
            data = shared.get(key)
            if data is None:
                data = shared[key] = frame(0xC0 | opcode, compressed(channel.deflate, payload))
            channel.finish_message()
            channel.deflate.release()
        try:
            if channel.gather is not NULL:
                channel.flush()
            if channel.stream is not None:
                channel.stream.send(<const uint8_t *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data)
            else:
                channel.write(data)
        except Exception as exc:
            failures.append((connection, exc))
            continue
        tg_count_bytes(channel.counts, TG_SENT, PyBytes_GET_SIZE(payload))
        tg_count_message(channel.counts, TG_SENT, opcode, PyBytes_GET_SIZE(payload))
    return rest, failures
