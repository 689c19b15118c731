"""What every message is made of."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from .cluster import Int32, Int64

PROTOCOL_VERSION: Final = 1

Text = Annotated[str, Meta(max_length=4096)]


class Message(Struct, frozen=True, array_like=True):
    """What every message starts with. `request_id` is chosen by the one who asks."""

    request_id: Int64
    version: Int32 = PROTOCOL_VERSION


class ErrorInfo(Struct, frozen=True, array_like=True):
    """A failure: a code of `ErrorCode` and a message that says what to do. Code 0 is success."""

    code: Int32 = 0
    message: Text = ""


OK: Final = ErrorInfo()
