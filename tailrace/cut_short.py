"""Was a file of LMDB's cut short? To read a page behind its end would end the process, by SIGBUS.

A whole file, too, may end before its last page: what a transaction takes at the end and gives back is never
written. But such pages are in LMDB's list of free ones, a tree of its own, which is read here without LMDB,
and only if the file is short. The format (0.9, mdb.c), little endian, with lengths in bytes:

    meta    header:16 magic:4 version:4 address:8 map_size:8 free:48 main:48 last_page:8 transaction:8
            in pages 0 and 1; the one with the higher transaction counts
    tree    page_size:4 (of `free` alone) flags:2 depth:2 counts:32 root:8
    page    number:8 pad:2 flags:2 lower:2 upper:2, where each node lies:2 up to `lower`, nodes
    node    low:2 high:2 flags:2 key_length:2 key, value
            in a branch page `low`, `high` and `flags` are the number of the page below
    value   in the node, or if its flags say so the number of the page that holds it, behind a header
    free    a value of the list: count:8, so many numbers of pages, 8 each
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from struct import Struct, unpack_from
from typing import BinaryIO, Final, NamedTuple

_META: Final = Struct("<16xII16xI36xQ48xQQ")
_PAGE: Final = Struct("<10xHH2x")
_NODE: Final = Struct("<HHHH")
_NUMBER: Final = Struct("<Q")
_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_BRANCH: Final = 1
"""A flag of pages."""
_ELSEWHERE: Final = 1
"""A flag of nodes: the value has pages of its own."""
_NO_PAGE: Final = 2**64 - 1


class _EndedError(Exception):
    """A page of the list itself is behind the end."""


class _Meta(NamedTuple):
    """Sizes in bytes."""

    magic: int
    version: int
    page_size: int
    root: int
    last_page: int
    transaction: int


def cut_short(data: Path) -> str | None:
    """What to say of it, before LMDB opens it; None if it is whole or not there. Raises OSError."""
    if not data.exists() or not is_cut_short(data):
        return None
    return f"{data.name} was cut short: pages that are in use lie behind its end, byte {data.stat().st_size}"


def is_cut_short(data: Path) -> bool:
    """Does a page that is in use lie behind the end, as far as the list of free ones can be read?

    No if it is no file of LMDB, which LMDB tells itself.
    """
    with data.open("rb") as file:
        meta = _newest(file)
        if meta is None:
            return False
        pages = os.fstat(file.fileno()).st_size // meta.page_size
        missing = meta.last_page + 1 - pages
        if missing <= 0:
            return False
        try:
            return sum(number >= pages for number in _free_pages(file, meta)) < missing
        except (_EndedError, struct.error):
            return True


def _newest(file: BinaryIO) -> _Meta | None:
    first = _meta(file, 0)
    second = None if first is None else _meta(file, first.page_size)
    return max(filter(None, (first, second)), key=lambda meta: meta.transaction, default=None)


def _meta(file: BinaryIO, at: int) -> _Meta | None:
    data = os.pread(file.fileno(), _META.size, at)
    if len(data) < _META.size:
        return None
    meta = _Meta(*_META.unpack(data))
    return meta if (meta.magic, meta.version) == (_MAGIC, _VERSION) and meta.page_size else None


def _free_pages(file: BinaryIO, meta: _Meta) -> Iterator[int]:
    """Raises _EndedError; struct.error for what is no such tree."""
    pages = [] if meta.root == _NO_PAGE else [meta.root]
    for _ in range(meta.last_page + 1):  # no tree has more
        if not pages:
            return
        page = _read(file, meta.page_size, pages.pop() * meta.page_size)
        flags, lower = _PAGE.unpack_from(page)
        for at in unpack_from(f"<{(lower - _PAGE.size) // 2}H", page, _PAGE.size):
            low, high, more, key_length = _NODE.unpack_from(page, at)
            value = at + _NODE.size + key_length
            if flags & _BRANCH:
                pages.append(low | high << 16 | more << 32)
            elif more & _ELSEWHERE:
                (number,) = _NUMBER.unpack_from(page, value)
                yield from _numbers(_read(file, low | high << 16, number * meta.page_size + _PAGE.size))
            else:
                yield from _numbers(page[value : value + (low | high << 16)])


def _numbers(value: bytes) -> tuple[int, ...]:
    (count,) = _NUMBER.unpack_from(value)
    return unpack_from(f"<{count}Q", value, _NUMBER.size)


def _read(file: BinaryIO, size: int, at: int) -> bytes:
    if at + size > os.fstat(file.fileno()).st_size:
        raise _EndedError
    return os.pread(file.fileno(), size, at)
