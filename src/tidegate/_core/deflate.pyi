import zlib
from typing import Any

from typing_extensions import Buffer

ZlibError = zlib.error

class TooLong(Exception): ...

class Deflate:
    remote_no_context_takeover: bool
    local_no_context_takeover: bool
    remote_max_window_bits: int
    local_max_window_bits: int
    compress_settings: dict[str, Any]
    in_message: bool
    out_message: bool
    def __init__(
        self,
        remote_no_context_takeover: bool,
        local_no_context_takeover: bool,
        remote_max_window_bits: int,
        local_max_window_bits: int,
        compress_settings: dict[str, Any] | None = None,
    ) -> None: ...
    def compress(self, data: Buffer, fin: bool = True) -> bytes: ...
    def decompress(self, data: Buffer, fin: bool, limit: int) -> bytes: ...
    def rest(self) -> None: ...
    def release(self) -> None: ...
