"""How stored bytes become the application's keys and values."""

from typing import Any, NamedTuple

from tailrace.client.serializers import Deserializer, deserializer_of


class Decoding:
    """The consumer's deserializers, and whether batches' checksums are verified.

    Without a deserializer bytes are handed over as they are. A null stays None and is given to none.
    """

    def __init__(
        self, key: Deserializer | None = None, value: Deserializer | None = None, check_crc: bool = True
    ) -> None:
        self.key = key
        self.value = value
        self.check_crc = check_crc
        self.plain = key is None and value is None
        """Are keys and values handed over as bytes?"""


def decoding_of(
    key: str | Deserializer | None, value: str | Deserializer | None, check_crc: bool
) -> Decoding:
    """As the consumer's options have it. Raises InvalidArgumentError."""
    return Decoding(
        deserializer_of("key_deserializer", key), deserializer_of("value_deserializer", value), check_crc
    )


class Decoded(NamedTuple):
    """The items up to the first that did not deserialize, and its error."""

    items: list[Any]
    error: Exception | None = None


def deserialize(deserializer: Deserializer | None, items: list[Any]) -> Decoded:
    """Apply a deserializer to a column."""
    if deserializer is None:
        return Decoded(items)
    done: list[Any] = []
    try:
        # `extend` keeps what it got before an exception.
        if None in items:
            done.extend(None if item is None else deserializer(item) for item in items)
        else:
            done.extend(map(deserializer, items))
    except Exception as error:  # noqa: BLE001 - the application's code; its error is raised in ours
        return Decoded(done, error)
    return Decoded(done)
