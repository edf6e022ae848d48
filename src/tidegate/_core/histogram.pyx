# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, auto_pickle=False
"""A log-linear histogram of nanoseconds, of fixed size, which many processes fill and one adds up.

A quantile is the highest value of the bucket that it falls in, as HdrHistogram has it: never below the exact one (of
the sorted values, the one at rank ceil(q * count)), and at most `ERROR` of it above. Count, sum, minimum and maximum
are exact. What must not live here: what is measured (load.pyx), how it is shown.
"""

import math

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef extern from "histogram.h" nogil:
    const uint32_t TG_BUCKETS
    const uint32_t TG_PARTS
    uint32_t tg_bucket(uint64_t value)
    uint64_t tg_lowest_of(uint32_t bucket)


ERROR = 1 / TG_PARTS


cdef class Histogram:
    """Values and how often each came, to a precision of `ERROR`.

    Attributes:
        count: how many values there are.
        total: their sum.
        maximum: the highest of them; 0 if there is none.
    """

    def __cinit__(self):
        self.counts = <uint64_t *> calloc(TG_BUCKETS, sizeof(uint64_t))
        if self.counts is NULL:
            raise MemoryError
        self.lowest = UINT64_MAX

    def __dealloc__(self):
        free(self.counts)

    cdef int add(self, uint64_t value, uint64_t times) noexcept:
        self.counts[tg_bucket(value)] += times
        self.count += times
        self.total += value * times
        if value > self.maximum:
            self.maximum = value
        if value < self.lowest:
            self.lowest = value
        return 0

    @property
    def minimum(self):
        """The lowest value; 0 if there is none."""
        return self.lowest if self.count else 0

    @property
    def mean(self):
        """The mean; 0 without values."""
        return self.total / self.count if self.count else 0.0

    def record(self, uint64_t value, uint64_t times=1):
        """Add a value, so many times."""
        if times:
            self.add(value, times)

    def merge(self, Histogram other not None):
        """Add the values of another one."""
        cdef uint32_t i
        for i in range(TG_BUCKETS):
            self.counts[i] += other.counts[i]
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)
        self.lowest = min(self.lowest, other.lowest)

    def quantile(self, double q):
        """The value that a share `q` of all, from 0 to 1, does not exceed; 0 without values."""
        cdef uint64_t rank, seen = 0
        cdef uint32_t i
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile is from 0 to 1, not {q}")
        rank = min(max(1, math.ceil(q * self.count)), self.count)
        if rank:
            for i in range(TG_BUCKETS):
                seen += self.counts[i]
                if seen >= rank:
                    return min(max(tg_lowest_of(i + 1) - 1, self.lowest), self.maximum) if i + 1 < TG_BUCKETS else self.maximum
        return 0

    def buckets(self):
        """(lowest, highest, count) of each bucket that is not empty."""
        cdef uint32_t i
        for i in range(TG_BUCKETS):
            if self.counts[i]:
                yield tg_lowest_of(i), tg_lowest_of(i + 1) - 1, self.counts[i]

    def dump(self):
        """All of it, for `load()` in another process."""
        cdef uint32_t i
        counts = [(i, self.counts[i]) for i in range(TG_BUCKETS) if self.counts[i]]
        return {"counts": counts, "total": self.total, "minimum": self.minimum, "maximum": self.maximum}

    @classmethod
    def load(cls, dumped):
        """What `dump()` made.

        Raises:
            ValueError: if a bucket is none.
        """
        cdef Histogram histogram = cls()
        for index, count in dumped["counts"]:
            if not 0 <= index < TG_BUCKETS:
                raise ValueError(f"no bucket of this histogram: {index}")
            histogram.counts[<uint32_t> index] += count
            histogram.count += count
        if histogram.count:
            histogram.total, histogram.maximum = dumped["total"], dumped["maximum"]
            histogram.lowest = dumped["minimum"]
        return histogram
