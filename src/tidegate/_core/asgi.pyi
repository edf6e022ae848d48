from collections.abc import Coroutine
from typing import Any

from .messages import MessageChannel

# Functions that become methods of AsgiConnection, which defines what they call for all that is not a message of an open
# connection: _receive_apart(), before its first event or its answer, and after its close; _end_event(), the event of the end; _send_event(event).
def receive(channel: MessageChannel) -> Coroutine[Any, Any, Any]: ...
def send(channel: MessageChannel, event: Any) -> Coroutine[Any, Any, None]: ...
