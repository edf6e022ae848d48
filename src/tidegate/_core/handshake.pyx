# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""The opening handshake of a plain request: judged from its bytes, without making Python objects of it.

What must not live here: requests that are not plain; http11.py and server.py judge them, and would answer plain ones the
same, byte for byte.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy


cdef extern from "handshake.h" nogil:
    ctypedef struct tg_text:
        const char *data
        size_t size
    ctypedef struct tg_plain_request:
        size_t size
        tg_text key
        tg_text extensions
    int tg_judge_plain(tg_plain_request *r, const char *p, size_t n)
    void tg_accept_key(char *out, const char *key)


cdef bytes FIRST = b"HTTP/1.1 101 Switching Protocols\r\nDate: "
cdef bytes THEN = b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


def accept_plain(bytes data not None, bytes date not None):
    """Accept a request that is as most are.

    Args:
        data: what was received, from the first byte on.
        date: value of the Date header.

    Returns:
        The size of the request's head, the response without what may come after Sec-WebSocket-Accept, and the value of
        Sec-WebSocket-Extensions or None. None instead if the request is not complete, not plain, or opens no WebSocket.
    """
    cdef tg_plain_request request
    cdef bytes response
    cdef char *p
    if not tg_judge_plain(&request, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)):
        return None
    response = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(FIRST) + PyBytes_GET_SIZE(date) + PyBytes_GET_SIZE(THEN) + 30)
    p = PyBytes_AS_STRING(response)
    for part in (FIRST, date, THEN):
        memcpy(p, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
        p += PyBytes_GET_SIZE(part)
    tg_accept_key(p, request.key.data)
    memcpy(p + 28, b"\r\n", 2)
    offer = None if request.extensions.data is NULL else request.extensions.data[:request.extensions.size]
    return request.size, response, offer
