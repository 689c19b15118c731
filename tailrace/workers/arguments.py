"""What can be told of a handler before it is sent anywhere."""

import inspect
from collections.abc import Callable
from typing import Any

from tailrace.client.arguments import check_callable
from tailrace.protocol.errors import InvalidArgumentError


def check_handler(handler: Callable[..., Any], *, with_state: bool, batches: bool) -> None:
    """A function that takes what workers give it, and has done its work when it returns.

    Raises InvalidArgumentError.
    """
    check_callable(handler)
    later = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_later(handler) for is_later in later):
        raise InvalidArgumentError(
            f"{handler!r:.100} does nothing before it is awaited or iterated: give a plain function, which "
            "may return a list of results, or call asyncio.run() in it"
        )
    given = ["batch" if batches else "record", *(["transaction"] if with_state else [])]
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # of a builtin, which does not tell
    try:
        signature.bind(*given)
    except TypeError as error:
        name = getattr(handler, "__name__", repr(handler))
        why = "local_state is given" if with_state else "there is no local_state"
        raise InvalidArgumentError(
            f"the handler is {name}{signature}, and is called with ({', '.join(given)}), since {why}: {error}"
        ) from None
