"""Names of topics and groups on the command line: regular expressions, and what a shell completes."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tailrace.protocol.errors import TailraceError

from .options import DEFAULT_BOOTSTRAP_SERVERS

if TYPE_CHECKING:
    from tailrace.client.admin import Admin

COMPLETE_WITHIN_MS = 1_000
"""A shell that completes waits no longer for the cluster."""

F = TypeVar("F", bound=Callable[..., Any])


def regex_option(command: F) -> F:
    """`-r`: names are patterns."""
    return click.option(
        "-r", "--regex", is_flag=True, help="Names are regular expressions that the whole name must match."
    )(command)


def pattern_of(names: Sequence[str]) -> str:
    """One pattern for all. Raises click.BadParameter for what is no regular expression."""
    for name in names:
        try:
            re.compile(name)
        except re.error as error:
            raise click.BadParameter(f"{name!r} is no regular expression: {error}") from None
    return names[0] if len(names) == 1 else "|".join(f"(?:{name})" for name in names)


def matching(names: Iterable[str], pattern: str, what: str = "topic") -> list[str]:
    """Those whose whole name matches, in order. Raises click.ClickException if there are none."""
    found = sorted(name for name in names if re.fullmatch(pattern, name))
    if not found:
        raise click.ClickException(f"no {what} matches {pattern}")
    return found


def chosen_topics(admin: "Admin", names: Sequence[str], *, regex: bool) -> Sequence[str]:
    """The names themselves, or the topics that they match."""
    return _of_each(admin.list_topics(), names, "topic") if regex else names


def chosen_groups(admin: "Admin", names: Sequence[str], *, regex: bool) -> Sequence[str]:
    """The names themselves, or the groups that they match."""
    if not regex:
        return names
    return _of_each([group.group_id for group in admin.list_groups()], names, "group")


def _of_each(names: Sequence[str], patterns: Sequence[str], what: str) -> list[str]:
    """Those that match any pattern, in order. Raises click.ClickException for a pattern that none matches."""
    pattern_of(patterns)
    return sorted({name for pattern in patterns for name in matching(names, pattern, what)})


def complete_topics(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The topics of the cluster that begin so; none if it is not there."""
    return _complete(context, incomplete, lambda admin: admin.list_topics())


def complete_groups(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The groups of the cluster that begin so; none if it is not there."""
    return _complete(context, incomplete, lambda admin: [group.group_id for group in admin.list_groups()])


def _complete(context: click.Context, incomplete: str, names: "Callable[[Admin], list[str]]") -> list[str]:
    from tailrace.client.admin import Admin

    servers = context.params.get("bootstrap_servers") or DEFAULT_BOOTSTRAP_SERVERS
    try:
        with Admin(servers, request_timeout_ms=COMPLETE_WITHIN_MS) as admin:
            found = names(admin)
    except TailraceError:  # there is no place to say it on a line that is being typed
        return []
    return [name for name in found if name.startswith(incomplete)]
