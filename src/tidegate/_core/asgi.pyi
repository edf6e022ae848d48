from collections.abc import Coroutine
from typing import Any

from .messages import MessageChannel

# Functions that become methods of AsgiConnection, which defines what they call for all that is no message of an open
# connection: _receive_apart(), before the first event or the answer, and after its close; _end_event(), which makes the
# event of the end; _send_event(event).
def receive(channel: MessageChannel) -> Coroutine[Any, Any, Any]: ...
def send(channel: MessageChannel, event: Any) -> Coroutine[Any, Any, None]: ...
