# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, binding=False, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The connections in a channel of the bus: who joins and leaves, and each message to all of them.

    Participant    a connection, with its number in each table that it is in
    Table          the participants of one channel

The members of a table are in a row without gaps: who leaves gives its number to the last one. So to join and to leave takes
as long among many as among few, and a message is given to all by going through the row once, as broadcast.pyx does it.
What must not live here: members that are no connections, and what becomes of those that cannot take a message at once.
"""

cimport cython
from cpython.list cimport PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from tidegate._core.broadcast cimport GIVEN, HANDED_BACK, Cast, tg_fetch
from tidegate._core.channel cimport Channel


cdef extern from *:
    PyObject *PyList_GET_ITEM(object members, Py_ssize_t i)


cdef struct tg_place:
    PyObject *table  # borrowed: a table that ends takes its places back
    Py_ssize_t number  # in the table


cdef class Participant:
    """A connection as a member of channels.

    `sender` is what the `connection` is called when it publishes, and `limit` how many bytes may wait for its peer to read
    them. While `is_behind` is set, messages wait that come before the next one: tables do not give it any, but hand it back.
    """

    cdef readonly Channel connection
    cdef public str sender
    cdef readonly Py_ssize_t limit
    cdef public bint is_behind

    cdef tg_place *places  # in no order: a connection is in few channels
    cdef int count
    cdef int room

    def __init__(self, Channel connection not None, str sender not None, Py_ssize_t limit):
        self.connection = connection
        self.sender = sender
        self.limit = limit

    def __dealloc__(self):
        PyMem_Free(self.places)

    cdef tg_place *find(self, Table table) noexcept:
        """Return its place in a table, or NULL."""
        cdef int i
        for i in range(self.count):
            if self.places[i].table == <PyObject *> table:
                return self.places + i
        return NULL

    cdef int make_room(self) except -1:
        """Have room for one more place."""
        cdef int room = 2 * self.room if self.room else 1
        cdef tg_place *places
        if self.count == self.room:
            places = <tg_place *> PyMem_Realloc(self.places, room * sizeof(tg_place))
            if places is NULL:
                raise MemoryError
            self.places, self.room = places, room
        return 0

    cdef void take_back(self, tg_place *place) noexcept:
        """Forget a place."""
        self.count -= 1
        place[0] = self.places[self.count]
        if self.count == 0:
            PyMem_Free(self.places)
            self.places, self.room = NULL, 0


# Not cleared by garbage collection: it finds the places that it has to take back. What it refers to is cleared.
@cython.final
@cython.no_gc_clear
cdef class Table:
    """The connections in a channel, that are given each message as it comes."""

    cdef list members  # of Participant
    cdef unsigned int left  # how many have left: whether one may have while a message is given

    def __cinit__(self):
        self.members = []

    def __dealloc__(self):
        cdef Participant member
        for member in self.members:
            member.take_back(member.find(self))

    def __len__(self):
        return PyList_GET_SIZE(self.members)

    def __contains__(self, member):
        return isinstance(member, Participant) and (<Participant> member).find(self) is not NULL

    def __iter__(self):
        return iter(list(self.members))

    @property
    def first(self):
        """A member, or None if there is none."""
        return self.members[0] if self.members else None

    def add(self, Participant member not None):
        """Add a member that is not there."""
        if member.connection is None:
            raise TypeError("a participant without a connection: __init__() was not called")
        if member.find(self) is not NULL:
            return
        member.make_room()
        self.members.append(member)
        member.places[member.count].table = <PyObject *> self
        member.places[member.count].number = PyList_GET_SIZE(self.members) - 1
        member.count += 1

    def discard(self, Participant member not None):
        """Remove a member; return whether it was there."""
        cdef tg_place *place = member.find(self)
        cdef Participant last
        cdef Py_ssize_t number
        if place is NULL:
            return False
        number = place.number
        member.take_back(place)
        self.left += 1
        last = <Participant> self.members.pop()
        if last is not member:
            last.find(self).number = number
            self.members[number] = last
        return True

    def give(self, uint8_t opcode, bytes payload not None, excluded=None, bint latest=False):
        """Send a whole message to every member whose connection is open and can take it at once, but for a sender.

        Return three lists: if only the latest message matters, the members who took it and have no room for more; those
        who cannot take it (in the middle of a fragmented message, behind, at their limit, logged or with other
        extensions); and pairs (connection, exception) of those whose transport raised.
        """
        cdef Cast cast = Cast.of(opcode, payload)
        cdef Participant member
        cdef Py_ssize_t i, n
        cdef int done
        cdef unsigned int left = self.left
        cdef list full = [], rest = []
        cdef list members = list(self.members)  # a member may leave, or make others leave, when it is given something
        n = PyList_GET_SIZE(members)
        for i in range(n):
            member = <Participant> members[i]
            if i + 3 < n:
                tg_fetch(PyList_GET_ITEM(members, i + 3))
                tg_fetch(<PyObject *> (<Participant> members[i + 2]).connection)
                tg_fetch(<PyObject *> (<Participant> members[i + 1]).connection.stream)
            if excluded is not None and member.sender == excluded:
                continue
            if left != self.left and member.find(self) is NULL:
                continue
            done = HANDED_BACK if member.is_behind else cast.give(member.connection, member.limit)
            if done == HANDED_BACK:
                rest.append(member)
            elif latest and done == GIVEN and member.connection._write_paused:
                full.append(member)
        return full, rest, cast.failures
