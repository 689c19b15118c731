"""What becomes of records that cannot be handed over: the option `on_error`."""

from typing import Final, NamedTuple

from tailrace.protocol.errors import InvalidArgumentError

_DEAD_LETTERS: Final = "dlq:"


class OnError(NamedTuple):
    """Raise, unless `tolerant`: then go on without them, once they are written to `topic` if there is one.

    What is wrong in `topic` itself is raised: a dead letter that cannot be read would beget others for ever.
    """

    tolerant: bool = False
    topic: str | None = None


RAISE: Final = OnError()
SKIP: Final = OnError(tolerant=True)


def on_error_of(option: object) -> OnError:
    """Raises InvalidArgumentError."""
    if option == "raise":
        return RAISE
    if option == "skip":
        return SKIP
    if isinstance(option, str) and option.startswith(_DEAD_LETTERS) and len(option) > len(_DEAD_LETTERS):
        return OnError(tolerant=True, topic=option.removeprefix(_DEAD_LETTERS))
    raise InvalidArgumentError(
        f"on_error is {option!r:.100}; it is 'raise', 'skip' or 'dlq:<topic>', where dead letters go"
    )
