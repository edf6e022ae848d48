"""Both sides do things in any order: frames right and wrong, readers that come and go, a peer that does not read, ends.

What must not live here: streams from one side only (test_receiving), compression for its own sake (test_round_trips).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.recorder import finish
from tests.fuzz import wires
from tests.fuzz.model import Deflating, Failed
from tests.fuzz.subject import Reader, Subject
from tests.fuzz.wires import Writer
from tests.support.wire import CLOSE
from tidegate.exceptions import ConnectionClosed, ProtocolError
from tidegate.protocol import CLOSED, OPEN


class Conversation(RuleBasedStateMachine):
    """One connection, its peer, and who reads and writes on it."""

    subject: Subject
    writer: Writer

    def __init__(self) -> None:
        super().__init__()
        self.pending = b""  # bytes that are on their way

    @initialize(options=wires.SETTINGS, deflating=st.none() | st.tuples(wires.DEFLATINGS, wires.DEFLATINGS))
    def open(self, options: dict[str, Any], deflating: tuple[Deflating, Deflating] | None) -> None:
        receiving, sending = deflating or (None, None)
        self.subject = Subject(**options, receiving=receiving, sending=sending)
        self.writer = Writer(not options["client"], receiving)
        self.lost = False

    # The peer.

    @rule(data=st.data())
    def they_send(self, data: st.DataObject) -> None:
        self.pending += data.draw(wires.messages(self.writer))

    @rule(data=st.data(), count=st.integers(2, 12))
    def they_send_many(self, data: st.DataObject, count: int) -> None:
        key = data.draw(wires.KEYS)
        self.pending += b"".join(self.writer.frame(b"%d" % i, 2, key) for i in range(count))

    @rule(data=st.data())
    def they_ping(self, data: st.DataObject) -> None:
        self.pending += data.draw(wires.controls(self.writer))

    @rule(data=st.data())
    def they_err(self, data: st.DataObject) -> None:
        self.pending += data.draw(wires.oddities(self.writer))

    @rule(data=st.data())
    def they_close(self, data: st.DataObject) -> None:
        self.pending += data.draw(wires.closes(self.writer))

    @precondition(lambda self: not self.lost)
    @rule(places=wires.PLACES, part=st.sampled_from([1.0, 1.0, 0.5, 0.1]))
    def it_arrives(self, places: list[int], part: float) -> None:
        now = self.pending[: int(len(self.pending) * part) + 1]
        for chunk in wires.cut(now, places):
            if not self.subject.line.reading:
                return
            self.subject.deliver(chunk)
            self.pending = self.pending[len(chunk) :]

    @precondition(lambda self: not self.lost and self.subject.held is None)
    @rule()
    def they_stop_reading(self) -> None:
        self.subject.pause_writing()

    @precondition(lambda self: not self.lost and self.subject.held is not None)
    @rule()
    def they_read_again(self) -> None:
        self.subject.resume_writing()

    @precondition(lambda self: not self.lost)
    @rule(broken=st.booleans(), polite=st.booleans())
    def it_ends(self, broken: bool, polite: bool) -> None:
        if polite:
            self.subject.connection.eof_received()
        self.subject.check()
        self.subject.lose(ConnectionResetError() if broken else None)
        self.lost = True

    # The application.

    @precondition(lambda self: self.subject.reader is None and self.subject.model.has_message())
    @rule(decode=st.sampled_from([None, None, False, True]))
    def we_take_a_message(self, decode: bool | None) -> None:
        model = self.subject.model
        try:
            expected = model.take(decode)
        except Failed as failed:
            self.we_cannot_decode_it(failed.args[0])
            return
        assert self.subject.take(decode) == expected

    def we_cannot_decode_it(self, code: int) -> None:
        awaitable = self.subject.connection.recv(True)
        if self.lost:
            with pytest.raises(ConnectionClosed):
                awaitable.send(None)
            self.subject.model.ended = True  # what has not been looked at never is
            return
        assert awaitable.send(None) is not None  # it waits for the end of the connection
        awaitable.close()
        self.subject.model.end(code)

    @precondition(lambda self: self.subject.reader is None and self.subject.model.has_message())
    @rule(decode=st.sampled_from([None, False]))
    def we_take_it_in_fragments(self, decode: bool | None) -> None:
        frames = self.subject.model.take_frames()
        iterator = self.subject.connection.recv_streaming(decode)
        got = []
        while True:
            try:
                got.append(finish(iterator.__anext__()))
            except StopAsyncIteration:
                break
        whole = b"".join(part.encode() if isinstance(part, str) else part for part in got)
        self.subject.loop.run()
        assert len(got) == len(frames) if len(frames) <= 16 else 16 <= len(got) <= len(frames)  # small ones are joined
        assert whole == b"".join(frame.payload for frame in frames)

    @precondition(lambda self: self.subject.reader is None)
    @rule(decode=st.sampled_from([None, False]), echo=st.booleans())
    def a_reader_comes(self, decode: bool | None, echo: bool) -> None:
        self.subject.reader = Reader(self.subject, decode, echo)
        self.subject.model.reader = True
        self.subject.reader.step()
        self.subject.reader.check(self.subject.model)

    @precondition(lambda self: self.subject.reader is not None)
    @rule()
    def the_reader_leaves(self) -> None:
        assert self.subject.reader is not None
        self.subject.reader.stop()
        self.subject.reader = None
        self.subject.model.reader = False

    @rule(
        message=st.text(max_size=30) | st.binary(max_size=200) | st.lists(st.text(max_size=5), min_size=1, max_size=3)
    )
    def we_send(self, message: Any) -> None:
        self.subject.send(message)

    @precondition(lambda self: self.subject.connection._state == OPEN)
    @rule(code=st.sampled_from([1000, 1001, 1005, 3000, 70000]), reason=st.sampled_from(["", "é" * 10, "x" * 124]))
    def we_close(self, code: int, reason: str) -> None:
        model = self.subject.model
        try:
            self.subject.connection.start_closing(code, reason)
        except (ProtocolError, OverflowError):
            assert code in (1005, 70000) or len(reason.encode()) > 123
            return
        model.answers.append((CLOSE, code))
        model.closing = True
        model.go_on()
        self.subject.loop.run()

    @rule()
    def time_passes(self) -> None:
        """An idle connection lets its compressor go, unless it was used since the last time."""
        for extension in self.subject.connection.extensions:
            extension.deflate.rest()

    # Always.

    @invariant()
    def both_are_of_one_opinion(self) -> None:
        if not hasattr(self, "subject"):
            return
        self.subject.loop.run()
        if not self.lost:
            self.subject.check()
        assert not self.subject.line.calls or set(self.subject.line.calls) <= {"pause", "resume"}
        if self.subject.model.ended and not self.lost:
            assert self.subject.line.ended
        if not self.subject.model.queue or self.lost:
            assert self.subject.line.reading or self.subject.connection._state == CLOSED

    def teardown(self) -> None:
        if hasattr(self, "subject"):
            self.subject.finish()


TestConversation = Conversation.TestCase
TestConversation.settings = wires.examples(
    150, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
