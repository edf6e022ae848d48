from typing import final

from .topic import Topic

KEYS: int
PUBLISHERS: int

class JournalError(ValueError): ...

def make_memory(size: int) -> int: ...
def boot_number() -> int: ...

@final
class Publisher:
    id: int
    last: int
    links: int

@final
class Journal:
    fd: int
    found: str
    stored: int
    evicted: int
    topics: dict[int, Topic]
    fault: int
    @staticmethod
    def attach(fd: int, anew: bool = False) -> Journal: ...
    def topic(self, name: str) -> Topic: ...
    def set_policy(self, topic: Topic, history: int, keep: int, history_bytes: int) -> None: ...
    def publisher(self, id: int) -> Publisher: ...
    def append(
        self,
        topic: Topic,
        data: bytes,
        flags: int = 0,
        publisher: Publisher | None = None,
        sequence: int = 0,
        time: int | None = None,
    ) -> int: ...
    def sweep(self, topics: int) -> None: ...
    def close(self) -> None: ...
