"""What a member may ask for."""

import re
from typing import Final

from tailrace.protocol.errors import (
    InstanceIdInUseError,
    InvalidArgumentError,
    InvalidGroupError,
    LimitExceededError,
)
from tailrace.protocol.group_messages import JoinGroup
from tailrace.protocol.limits import (
    GROUP_STORE_ROWS_BYTES_MAX,
    NAME_LENGTH_MAX,
    SESSION_TIMEOUT_MS_MAX,
    SESSION_TIMEOUT_MS_MIN,
)

from ..topic_settings import shown
from .assignors import ASSIGNORS
from .changes import MemberRow
from .state import GroupsState, member_bytes

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def check_group_id(group_id: str) -> None:
    """Raises InvalidGroupError."""
    _check_name("group id", group_id)


def check_join(request: JoinGroup) -> None:
    """Raises InvalidGroupError, InvalidArgumentError."""
    check_group_id(request.group_id)
    if request.instance_id:
        _check_name("group_instance_id", request.instance_id)
    if not request.member_id:
        raise InvalidGroupError("a member needs an id, which it makes up")
    if not SESSION_TIMEOUT_MS_MIN <= request.session_timeout_ms <= SESSION_TIMEOUT_MS_MAX:
        raise InvalidArgumentError(
            f"session_timeout_ms is {request.session_timeout_ms}; it is from {SESSION_TIMEOUT_MS_MIN} to "
            f"{SESSION_TIMEOUT_MS_MAX}"
        )
    if request.assignor not in ASSIGNORS:
        raise InvalidArgumentError(f"there is no assignor {request.assignor!r}: use {' or '.join(ASSIGNORS)}")


def _check_name(what: str, name: str) -> None:
    if not name or len(name) > NAME_LENGTH_MAX or name in (".", "..") or not _NAME.fullmatch(name):
        raise InvalidGroupError(
            f"{what} {shown(name)}: use 1 to {NAME_LENGTH_MAX} of A-Z, a-z, 0-9, '.', '_' and '-', "
            "and not '.' or '..' alone"
        )


def instance_in_use(group_id: str, held_by: MemberRow) -> InstanceIdInUseError:
    """Another process is that static member, and may be alive."""
    return InstanceIdInUseError(
        f"group_instance_id {held_by.instance_id!r} of group {group_id!r} is in use by client "
        f"{held_by.client_id} on host {held_by.host}: give each instance an id of its own, or stop "
        f"that one; if it was cut off, it is given up after {held_by.session_timeout_ms} ms"
    )


def check_room(state: GroupsState, group_id: str, row: MemberRow) -> None:
    """Raises LimitExceededError for a member whose row the store has no room for."""
    if state.stored_bytes + member_bytes(group_id, row) > GROUP_STORE_ROWS_BYTES_MAX:
        raise store_full()


def store_full() -> LimitExceededError:
    """The store takes nothing more."""
    return LimitExceededError(
        f"the members and offsets of all groups take {GROUP_STORE_ROWS_BYTES_MAX} bytes, the most that is "
        "possible: delete groups that nobody needs (tailrace group delete)"
    )
