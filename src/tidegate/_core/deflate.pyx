# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""Compressing and decompressing the messages of one connection (RFC 7692 section 7.2).

Compressors are made when they are first needed, and let go when they are idle: a window costs more than all else that a
connection has. What must not live here: negotiation (extensions.permessage_deflate), frames and their bits (channel).
"""

import zlib

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

# zlib, of three that were measured side by side, for its memory. KiB that a connection holds to compress, and to decompress,
# with the default settings: zlib 32 + 10, zlib-ng 160 + 13, isal 81 + 26. Microseconds for a JSON message of 64 B, 1 KiB, 16 KiB:
#   to compress    zlib 3.0, 20.7, 275    zlib-ng 1.9, 12.2, 125    isal 2.7, 5.7, 28 (a sixth larger)
#   to decompress  zlib 0.3, 4.0, 37      zlib-ng 0.4, 2.8, 19      isal 0.9, 3.8, 17
cdef object make_compressor = zlib.compressobj
cdef object make_decompressor = zlib.decompressobj
cdef int SYNC_FLUSH = zlib.Z_SYNC_FLUSH
ZlibError = zlib.error

cdef dict DEFAULTS = {}  # one object, so that equal settings of many connections are the same

# Every flush ends with an empty block, which is left out of the message and put back before decompressing it.
cdef bytes EMPTY_BLOCK = b"\x00\x00\xff\xff"
cdef bytes FLUSHED = b"\x00" + EMPTY_BLOCK

# Streams after the first in one frame. A peer that flushes by final blocks has one in a frame; each costs a decompressor,
# and need not have more than two bytes.
cdef int MAX_STREAMS = 16


class TooLong(Exception):
    """The message would be longer than the limit; `args[0]` bytes were made of it."""


cdef class Deflate:
    """Both directions of one connection.

    `compress_settings` are keyword arguments of zlib.compressobj(); the window is negotiated and not among them.
    """

    def __init__(
        self,
        bint remote_no_context_takeover,
        bint local_no_context_takeover,
        int remote_max_window_bits,
        int local_max_window_bits,
        compress_settings=None,
    ):
        self.remote_no_context_takeover = remote_no_context_takeover
        self.local_no_context_takeover = local_no_context_takeover
        self.remote_max_window_bits = remote_max_window_bits
        self.local_max_window_bits = local_max_window_bits
        self.compress_settings = compress_settings or DEFAULTS

    cpdef bytes compress(self, object data, bint fin=True):
        """Compress a message, or a fragment of one (RFC 7692 7.2.1)."""
        cdef bytes head, tail
        if self.compressor is None:
            self.compressor = make_compressor(wbits=-self.local_max_window_bits, **self.compress_settings)
        self.busy = True
        head = self.compressor.compress(data)
        tail = self.compressor.flush(SYNC_FLUSH)
        if head:
            tail = head + tail
        self.out_message = not fin
        if fin:
            if self.local_no_context_takeover:
                self.compressor = None
            tail = tail[: len(tail) - 4]
        return tail

    cpdef bytes decompress(self, object data, bint fin, Py_ssize_t limit):
        """Decompress a message, or a fragment of one (RFC 7692 7.2.2), to at most `limit` bytes; -1 for no limit.

        Raises:
            TooLong: if there would be more; they are not made.
            zlib.error: if the data are not compressed as they should be.
        """
        cdef bytes out
        cdef int streams = 0
        if not isinstance(data, bytes):
            data = bytes(data)
        if not data and not (self.in_message and self.in_bytes):
            # Some peers make nothing of an empty message. The empty block alone would be no block.
            self.in_message, self.in_bytes = not fin, False
            return b""
        self.in_bytes = True
        # Some peers leave it there. It cannot be anything else: what is before it ends with bits that are 0.
        if fin and not data.endswith(EMPTY_BLOCK):
            data = data + EMPTY_BLOCK
        out = self.inflate(data, limit)
        while self.decompressor.eof:
            # A final block ends its stream, and the peer goes on with a new one (RFC 7692 7.2.1 and 7.2.3.4), mostly in its
            # next message: then all that follows is our empty block, with the zero byte that peers write before it.
            data = self.decompressor.unused_data
            self.decompressor = None
            if not data or (fin and (data == EMPTY_BLOCK or data == FLUSHED)):
                break
            streams += 1
            if streams > MAX_STREAMS:
                raise ZlibError(f"more than {MAX_STREAMS} final blocks in a frame")
            out += self.inflate(data, limit if limit < 0 else limit - len(out))
        self.in_message = not fin
        if fin and self.remote_no_context_takeover:
            self.decompressor = None
        return out

    cdef bytes inflate(self, bytes data, Py_ssize_t limit):
        """Decompress what there is of a stream."""
        cdef bytes out
        if self.decompressor is None:
            self.decompressor = make_decompressor(wbits=-self.remote_max_window_bits)
        if limit < 0 or limit == PY_SSIZE_T_MAX:
            return self.decompressor.decompress(data)
        # One byte more than the limit shows that there is more; 0 would mean no limit.
        out = self.decompressor.decompress(data, limit + 1)
        if len(out) > limit:
            raise TooLong(len(out))
        return out

    cpdef rest(self):
        """Called now and then: let the compressor go if nothing was sent since the last call."""
        if not self.busy:
            self.release()
        self.busy = False

    cpdef release(self):
        """Let the compressor go: the next message starts a context of its own, which every peer can decompress."""
        if not self.out_message:
            self.compressor = None
