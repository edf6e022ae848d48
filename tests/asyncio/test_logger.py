"""The extra of websocket.logger: the connection is in every record, and the logger does not keep it."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest

from tidegate.asyncio.logger import ConnectionExtra


class Anything:
    """In place of a connection."""


def logger_of(connection: Anything) -> logging.LoggerAdapter[logging.Logger]:
    return logging.LoggerAdapter(logging.getLogger("test.logger"), ConnectionExtra(connection))


def test_the_connection_is_in_every_record(caplog: pytest.LogCaptureFixture) -> None:
    connection = Anything()
    logger = logger_of(connection)
    with caplog.at_level(logging.INFO, "test.logger"):
        logger.info("plain %d", 1)
    (record,) = caplog.records
    assert record.getMessage() == "plain 1"
    assert record.websocket is connection  # type: ignore[attr-defined]


def test_it_is_a_mapping_that_can_be_added_to(caplog: pytest.LogCaptureFixture) -> None:
    connection = Anything()
    logger = logger_of(connection)
    assert logger.extra == {"websocket": connection}
    logger.extra["user"] = "somebody"  # type: ignore[index]
    assert dict(logger.extra) == {"websocket": connection, "user": "somebody"}  # type: ignore[arg-type]
    assert len(logger.extra) == 2  # type: ignore[arg-type]
    assert "user" in repr(logger.extra)
    with caplog.at_level(logging.INFO, "test.logger"):
        logger.info("one")
        del logger.extra["user"]  # type: ignore[attr-defined]
        logger.info("two")
    one, two = caplog.records
    assert one.user == "somebody"  # type: ignore[attr-defined]
    assert one.websocket is two.websocket is connection  # type: ignore[attr-defined]
    assert not hasattr(two, "user")


def test_it_outlives_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    connection = Anything()
    logger = logger_of(connection)
    connection.logger = logger  # type: ignore[attr-defined]
    reference = weakref.ref(connection)
    gc.disable()
    try:
        del connection
        assert reference() is None
    finally:
        gc.enable()
    with caplog.at_level(logging.INFO, "test.logger"):
        logger.info("bye")
    assert caplog.records[0].websocket is None  # type: ignore[attr-defined]
