"""Clients that take the options of others, without a list of them of their own."""

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

P = ParamSpec("P")


def options_of(
    client: Callable[P, Any],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """A decorator for an `__init__` that takes what this class takes: type checkers and help() see that."""

    def decorate(own: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        own.__signature__ = inspect.signature(client.__init__)  # type: ignore[attr-defined]
        return own

    return decorate
