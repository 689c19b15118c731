"""Keyword options that nobody knows: refused, with the one that was probably meant."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping

from tailrace.protocol.errors import InvalidArgumentError


def reject_unknown(owner: str, unknown: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise InvalidArgumentError if `unknown` holds anything.

    `owner` is the class as the user knows it ("Producer"), `known` are its options.
    """
    if not unknown:
        return
    names = sorted(known)
    problems = "; ".join(_problem(owner, name, names) for name in unknown)
    raise InvalidArgumentError(f"{problems} (options: {', '.join(names)})")


def keyword_options(function: Callable[..., object]) -> list[str]:
    """The names of a function's parameters that can be given by keyword, for `known`."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return [
        parameter.name for parameter in parameters if parameter.kind in named and parameter.name != "self"
    ]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest of `known`, or nothing when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _problem(owner: str, name: str, known: list[str]) -> str:
    return f"{owner} has no option {name!r}{did_you_mean(name, known)}"
