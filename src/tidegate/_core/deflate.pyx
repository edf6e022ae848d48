# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""Compressing and decompressing the messages of one connection (RFC 7692 section 7.2).

    Deflate     both directions
    TooLong     raised for a message that is too long when it is decompressed
    ZlibError   raised for data that are not compressed as they should be: zlib.error

Compressors are made when they are first needed, and dropped when they are idle: a window takes more memory than the rest of
a connection. What must not live here: negotiation (extensions.permessage_deflate), frames and their bits (channel).
"""

import zlib

cimport cython

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

# zlib, of three libraries that were measured, for its memory. KiB that a connection holds to compress, and to decompress,
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

# Streams after the first in one frame. A peer that flushes by final blocks needs one in a frame; each costs a decompressor,
# and may have as few as two bytes.
cdef int MAX_STREAMS = 16

# Pieces of a large message, in bytes, between which other connections may have their turn: 50 us of inflating zeros, 300 us
# of compressing JSON.
cdef Py_ssize_t READ_AT_ONCE = 1 << 14
cdef Py_ssize_t INFLATED_AT_ONCE = 1 << 16


class TooLong(Exception):
    """The message would be longer than the limit; `args[0]` bytes were made of it."""


cdef class Deflate:
    """Both directions of one connection's compression, with the parameters of RFC 7692 section 7.1.

    Attributes:
        remote_no_context_takeover, local_no_context_takeover: whether a side starts anew with each message.
        remote_max_window_bits, local_max_window_bits: the size of a side's window, as a power of two.
        compress_settings: other keyword arguments of zlib.compressobj().
        in_message, out_message: whether a message is received or sent in fragments now.
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
        """Compress a message, or a fragment of one (RFC 7692 section 7.2.1)."""
        cdef bytes head, tail
        self.busy = True
        head = self.need_compressor().compress(data)
        tail = self.compressor.flush(SYNC_FLUSH)
        if head:
            tail = head + tail
        self.out_message = not fin
        if fin:
            if self.local_no_context_takeover:
                self.compressor = None
            tail = tail[: len(tail) - 4]
        return tail

    cdef object need_compressor(self):
        """Return the compressor, made if there is none."""
        if self.compressor is None:
            self.compressor = make_compressor(wbits=-self.local_max_window_bits, **self.compress_settings)
        return self.compressor

    cpdef bytes decompress(self, object data, bint fin, Py_ssize_t limit):
        """Decompress a message, or a fragment of one (RFC 7692 section 7.2.2), to at most `limit` bytes; -1 for no limit.

        Raises:
            TooLong: if there would be more; they are not made.
            zlib.error: if the data are not compressed as they should be.
        """
        cdef Inflation inflation = self.inflation(data if isinstance(data, bytes) else bytes(data), fin, limit)
        cdef bytes out = None
        while out is None:
            out = inflation.proceed()
        return out

    cdef Compression compression(self, bytes data):
        """Begin to compress a whole message; until that is done or given up, nothing else is compressed."""
        cdef Compression made = Compression.__new__(Compression)
        made.deflate = self
        made.message = data
        made.pieces = []
        self.busy = self.out_message = True
        return made

    cdef Inflation inflation(self, bytes data, bint fin, Py_ssize_t limit):
        """Begin to decompress a frame."""
        cdef Inflation made = Inflation.__new__(Inflation)
        made.deflate = self
        made.fin = fin
        made.limit = PY_SSIZE_T_MAX - 1 if limit < 0 else min(limit, PY_SSIZE_T_MAX - 1)
        # Some peers compress an empty message to nothing. The empty block alone would be invalid.
        self.in_bytes = len(data) > 0 or (self.in_message and self.in_bytes)
        if self.in_bytes:
            # Some peers do not remove it. These bytes are nothing else: what is before them ends with bits that are 0.
            made.source = data + EMPTY_BLOCK if fin and not data.endswith(EMPTY_BLOCK) else data
        return made

    cpdef rest(self):
        """Drop the compressor if nothing was sent since the last call."""
        if not self.busy:
            self.release()
        self.busy = False

    cpdef release(self):
        """Drop the compressor: the next message starts a new context, which every peer can decompress."""
        if not self.out_message:
            self.compressor = None


@cython.final
cdef class Compression:
    """A message that goes out, compressed piece by piece."""

    cdef bytes proceed(self):
        """Compress a piece. Return the compressed message after the last one, before that None."""
        cdef Deflate deflate = self.deflate
        cdef bytes piece = self.message[self.at : self.at + COMPRESSED_AT_ONCE]
        self.at += COMPRESSED_AT_ONCE
        if self.at < len(self.message):
            self.pieces.append(deflate.need_compressor().compress(piece))
            return None
        self.pieces.append(deflate.compress(piece))
        return b"".join(self.pieces)

    cdef int give_up(self) except -1:
        """Drop the message: nothing of it is sent, and the next one must not refer to it."""
        self.deflate.out_message = False
        self.deflate.release()
        return 0


@cython.final
@cython.freelist(8)
cdef class Inflation:
    """A frame that came in, inflated piece by piece."""

    cdef bytes proceed(self):
        """Inflate a piece. Return the whole payload after the last one, before that None."""
        cdef Deflate deflate = self.deflate
        cdef bytes out = b""
        # One byte more than the limit shows that there is more.
        cdef Py_ssize_t most = min(INFLATED_AT_ONCE, self.limit + 1 - self.size)
        if self.source is not None:
            if deflate.decompressor is None:
                deflate.decompressor = make_decompressor(wbits=-deflate.remote_max_window_bits)
            out = deflate.decompressor.decompress(self.next_source(), most)
            self.size += len(out)
            if self.size > self.limit:
                raise TooLong(self.size)
            if deflate.decompressor.eof:
                self.source = self.next_stream()
            elif len(out) == most or self.at < len(self.source):
                self.unconsumed = deflate.decompressor.unconsumed_tail
            else:
                self.source = None
        if self.source is not None:
            if self.pieces is None:
                self.pieces = []
            self.pieces.append(out)
            return None
        deflate.in_message = not self.fin
        if self.fin and deflate.remote_no_context_takeover:
            deflate.decompressor = None
        if self.pieces is None:
            return out
        self.pieces.append(out)
        return b"".join(self.pieces)

    cdef bytes next_source(self):
        """Return what the decompressor gets next: not all at once, since what it leaves over is copied."""
        cdef bytes data = self.unconsumed
        self.unconsumed = None
        if not data:
            data = self.source[self.at : self.at + READ_AT_ONCE]
            self.at += len(data)
        return data

    cdef bytes next_stream(self):
        """Return what follows a final block, which ends its stream; None if nothing does.

        The peer goes on with a new stream (RFC 7692 sections 7.2.1 and 7.2.3.4), mostly in its next message: then only the
        empty block follows that was put back, with the zero byte that peers write before it.
        """
        cdef Deflate deflate = self.deflate
        cdef bytes data = deflate.decompressor.unused_data + self.source[self.at :]
        deflate.decompressor = None
        self.at = 0
        if not data or (self.fin and (data == EMPTY_BLOCK or data == FLUSHED)):
            return None
        self.streams += 1
        if self.streams > MAX_STREAMS:
            raise ZlibError(f"more than {MAX_STREAMS} final blocks in a frame")
        return data
