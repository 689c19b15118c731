"""Header frames to messages and back."""

from collections.abc import Callable
from typing import Final, TypeVar

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

_node_requests: Final[msgspec.msgpack.Decoder[NodeRequest]] = msgspec.msgpack.Decoder(NodeRequest)
_coordinator_requests: Final[msgspec.msgpack.Decoder[CoordinatorRequest]] = msgspec.msgpack.Decoder(
    CoordinatorRequest
)
_replies: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)
_published: Final[msgspec.msgpack.Decoder[Published]] = msgspec.msgpack.Decoder(Published)
_prefix: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


encode: Final[Callable[[Request | Reply | Published], bytes]] = msgspec.msgpack.Encoder().encode
"""The header frame of a message."""


def decode_node_request(header: bytes | memoryview) -> NodeRequest:
    """Raises MalformedRequestError, UnsupportedVersionError, RequestTooLargeError."""
    return _decode(_node_requests, header)


def decode_coordinator_request(header: bytes | memoryview) -> CoordinatorRequest:
    """Raises MalformedRequestError, UnsupportedVersionError, RequestTooLargeError."""
    return _decode(_coordinator_requests, header)


def decode_reply(header: bytes | memoryview) -> Reply:
    """Raises MalformedRequestError, UnsupportedVersionError, RequestTooLargeError."""
    return _decode(_replies, header)


def decode_published(header: bytes | memoryview) -> Published:
    """Raises MalformedRequestError, RequestTooLargeError. What is published carries no protocol version."""
    return _decode(_published, header, versioned=False)


def request_id_of(header: bytes | memoryview) -> int:
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


def _decode(decoder: msgspec.msgpack.Decoder[M], header: bytes | memoryview, versioned: bool = True) -> M:
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


def _unsupported(version: int) -> UnsupportedVersionError:
    return UnsupportedVersionError(f"protocol version {version}, this process speaks {PROTOCOL_VERSION}")


def _version_of(header: bytes | memoryview) -> int | None:
    try:
        return msgspec.msgpack.decode(_prefix.decode(header)[2], type=int)
    except (msgspec.MsgspecError, IndexError, UnicodeDecodeError, RecursionError):
        return None
