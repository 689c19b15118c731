"""Header frames to messages and back."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias, TypeVar

import msgspec

from .cluster import Int64
from .errors import MalformedRequestError, RequestTooLargeError, TailraceError, UnsupportedVersionError
from .limits import HEADER_BYTES_MAX
from .messages import (
    PROTOCOL_VERSION,
    CoordinatorRequest,
    ErrorInfo,
    Failed,
    NodeRequest,
    Published,
    Reply,
    Request,
)

M = TypeVar("M")
Header: TypeAlias = bytes | memoryview

_node_requests: Final[msgspec.msgpack.Decoder[NodeRequest]] = msgspec.msgpack.Decoder(NodeRequest)
_coordinator_requests: Final[msgspec.msgpack.Decoder[CoordinatorRequest]] = msgspec.msgpack.Decoder(
    CoordinatorRequest
)
_replies: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)
_published: Final[msgspec.msgpack.Decoder[Published]] = msgspec.msgpack.Decoder(Published)
_prefix: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


encode: Final[Callable[[Request | Reply | Published], bytes]] = msgspec.msgpack.Encoder().encode
"""The header frame of a message."""


def request_id_of(header: Header) -> int:
    """The request id of a header that did not decode, for its error reply; -1 if unreadable."""
    if len(header) > HEADER_BYTES_MAX:
        return -1
    try:
        fields = _prefix.decode(header)
        return msgspec.msgpack.decode(fields[1], type=Int64)
    except (msgspec.MsgspecError, IndexError, UnicodeDecodeError, RecursionError):
        return -1


def failure(request_id: int, error: TailraceError) -> Failed:
    """The reply that reports `error` for a whole request."""
    return Failed(request_id, error=error_info(error))


def error_info(error: TailraceError) -> ErrorInfo:
    """An exception as it travels."""
    return ErrorInfo(int(error.code), str(error)[:4096])


def _decode(decoder: msgspec.msgpack.Decoder[M], header: Header, versioned: bool = True) -> M:
    if len(header) > HEADER_BYTES_MAX:
        raise RequestTooLargeError(f"header of {len(header)} bytes, at most {HEADER_BYTES_MAX}")
    try:
        message = decoder.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        version = _version_of(header) if versioned else None
        if version is not None and version != PROTOCOL_VERSION:
            raise _unsupported(version) from None
        raise MalformedRequestError(f"not a message of this protocol: {error}") from None
    if versioned and message.version != PROTOCOL_VERSION:  # type: ignore[attr-defined]
        raise _unsupported(message.version)  # type: ignore[attr-defined]
    return message


decode_node_request: Final[Callable[[Header], NodeRequest]] = partial(_decode, _node_requests)
"""Raises MalformedRequestError, UnsupportedVersionError, RequestTooLargeError."""
decode_coordinator_request: Final[Callable[[Header], CoordinatorRequest]] = partial(
    _decode, _coordinator_requests
)
"""Raises MalformedRequestError, UnsupportedVersionError, RequestTooLargeError."""
decode_reply: Final[Callable[[Header], Reply]] = partial(_decode, _replies)
"""Raises MalformedRequestError, UnsupportedVersionError, RequestTooLargeError."""
decode_published: Final[Callable[[Header], Published]] = partial(_decode, _published, versioned=False)
"""Raises MalformedRequestError, RequestTooLargeError. What is published carries no protocol version."""


def _unsupported(version: int) -> UnsupportedVersionError:
    return UnsupportedVersionError(f"protocol version {version}, this process speaks {PROTOCOL_VERSION}")


def _version_of(header: Header) -> int | None:
    try:
        return msgspec.msgpack.decode(_prefix.decode(header)[2], type=int)
    except (msgspec.MsgspecError, IndexError, UnicodeDecodeError, RecursionError):
        return None
