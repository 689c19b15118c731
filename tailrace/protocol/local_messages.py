"""What a client within one machine hands over to its node, so that not all goes through their connection.

A descriptor is a number that the client's process knows an open file by. Whose process that is, the node
takes from the kernel. The number may be another file's by the time the node opens it: a token or an inode
tells. The grammar of what then travels is in `descriptor.py` and `piped.py`.
"""

from typing import Annotated, TypeAlias

from msgspec import Meta

from .limits import ARENA_TOKEN_BYTES
from .message import Message

Descriptor = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Inode = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class OpenArena(Message, frozen=True, kw_only=True, tag=6):
    """Share memory with me: descriptor `fd` of my process, which begins with `token`. Only over ipc."""

    fd: Descriptor
    token: Annotated[bytes, Meta(min_length=ARENA_TOKEN_BYTES, max_length=ARENA_TOKEN_BYTES)]


class ArenaOpened(Message, frozen=True, tag=106):
    """From now on payloads may be descriptors of that memory."""


class OpenPipes(Message, frozen=True, kw_only=True, tag=9):
    """Read small requests from one pipe of my process, write small replies to another. Only over ipc."""

    requests_fd: Descriptor
    requests_inode: Inode
    replies_fd: Descriptor
    replies_inode: Inode


class PipesOpened(Message, frozen=True, tag=109):
    """From now on small messages may go through these pipes."""


LocalRequest: TypeAlias = OpenArena | OpenPipes
LocalReply: TypeAlias = ArenaOpened | PipesOpened
