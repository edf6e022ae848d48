# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""The frames of a server, of whose messages only the ends matter: in pieces of any size, and nothing of them is kept.

What must not live here: what follows from a message (load.pyx); frames whose payload is used (parser.pyx).
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from tidegate._core.stream cimport Receiver
from tidegate._core.wire cimport tg_frame, tg_parse_header


# Opcodes, RFC 6455 section 11.8.
cdef enum:
    CLOSE = 8
    PING = 9
    PONG = 10


cdef class Scanner(Receiver):
    cdef int control_received(self, uint8_t opcode, const uint8_t *p, int n) except -1:
        """A control frame is there."""
        raise NotImplementedError

    cdef int wrong(self, str reason) except -1:
        """The server broke the protocol; nothing is read any more."""
        raise NotImplementedError

    cdef Py_ssize_t parse(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Return how many messages end in these bytes."""
        cdef Py_ssize_t messages = 0, size, taken
        while n > 0 and not self.broken:
            if self.left:
                taken = <Py_ssize_t> min(self.left, <uint64_t> n)
                if self.incoming.opcode & 8:
                    memcpy(self.control + self.control_size, p, taken)
                    self.control_size += <int> taken
                self.left -= taken
            else:
                taken = self.parse_header(p, n)
                if self.have == 0 and not self.begin_frame():
                    break
            p += taken
            n -= taken
            if self.left == 0 and self.have == 0:
                messages += self.end_frame()
        return messages

    cdef Py_ssize_t parse_header(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Read a header, or what there is of it, which is kept: the bytes taken; `have` is 0 if it is whole."""
        cdef Py_ssize_t size, more
        if self.have == 0:
            size = tg_parse_header(p, n, &self.incoming)
            if size:
                return size
        more = min(n, <Py_ssize_t> (sizeof(self.header) - self.have))
        memcpy(self.header + self.have, p, more)
        size = tg_parse_header(self.header, self.have + more, &self.incoming)
        if size == 0:
            self.have += <int> more
            return more
        more = size - self.have
        self.have = 0
        return more

    cdef bint begin_frame(self) except -1:
        """Check a header (RFC 6455 section 5.2): whether its payload may come."""
        cdef tg_frame *frame = &self.incoming
        cdef bint first = frame.opcode in (1, 2)
        if frame.masked and not self.raw:
            self.refuse("a masked frame from the server")
        elif frame.rsv & ~(4 if self.compressed and first else 0):
            self.refuse("a frame with a reserved bit that was not agreed on")
        elif frame.length >> 63:
            self.refuse("a frame with a length that cannot be")
        elif frame.opcode in (CLOSE, PING, PONG):
            if frame.length > 125 or not frame.fin:
                self.refuse("a control frame that is too long or fragmented")
        elif not first and frame.opcode != 0:
            self.refuse("a frame with an unknown opcode")
        elif first == self.in_message:
            self.refuse("a message within another" if first else "a continuation of no message")
        else:
            self.in_message = not frame.fin
        self.left = frame.length
        self.control_size = 0
        return not self.broken

    cdef int refuse(self, str reason) except -1:
        self.broken = True
        return self.wrong(reason)

    cdef int end_frame(self) except -1:
        """Return 1 for the end of a message."""
        if self.incoming.opcode < 8:
            return self.incoming.fin
        self.control_received(self.incoming.opcode, self.control, self.control_size)
        return 0
