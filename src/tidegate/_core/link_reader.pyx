# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Frames of a link to the hub, as they come in a linked process: bytes to tuples.

    LinkReader    one link

It does what Decoder of bus/link.py does, and skips no kind. What must not live here: the hub's end (switch.pyx), what a
frame means (bus/local.py).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from tidegate._core.link_head cimport TG_LINK_PAYLOAD, tg_link_head


@cython.final
cdef class LinkReader:
    """The frames of one link. It keeps at most the frame that has not come whole, which is not longer than one may be."""

    cdef bytearray rest

    def __cinit__(self):
        self.rest = bytearray()

    def __len__(self):
        return len(self.rest)

    def feed(self, bytes data not None):
        """Return what is complete with `data`: tuples (kind, flags, channel, publisher, offset, time, sequence, payload).

        ValueError: a frame is too long; the link must end.
        """
        cdef list found = []
        cdef uint64_t at
        if not self.rest:
            at = self._read(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), found)
            if at < <uint64_t>PyBytes_GET_SIZE(data):
                self.rest += data[at:]
        else:
            self.rest += data
            at = self._read(self.rest, len(self.rest), found)
            del self.rest[:at]
        return found

    cdef uint64_t _read(self, const char *data, uint64_t size, list found) except? 0:
        """Add the frames that are complete; return where the rest begins."""
        cdef tg_link_head head
        cdef uint64_t at = 0
        while size - at >= sizeof(head):
            memcpy(&head, data + at, sizeof(head))
            if head.length > TG_LINK_PAYLOAD:
                raise ValueError(f"a frame holds at most {TG_LINK_PAYLOAD} bytes, and this one says {head.length}")
            if size - at - sizeof(head) < head.length:
                break
            found.append((
                head.kind, head.flags, head.channel, head.publisher, head.offset, head.time, head.sequence,
                PyBytes_FromStringAndSize(data + at + sizeof(head), head.length),
            ))
            at += sizeof(head) + head.length
        return at
