"""`AsyncConsumer.local_transaction`: changes are collected in the loop, and made in a thread."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from tailrace.protocol.record import TopicPartition

from .local.buffered import BufferedKeys
from .local.transaction import LocalTransaction
from .local_transactions import Block
from .session import Session
from .turns import Turns


@asynccontextmanager
async def async_local_transaction(
    session: Session, turns: Turns, name: TopicPartition | None, check_no_reader: Callable[[], None]
) -> AsyncIterator[LocalTransaction]:
    """As `AsyncConsumer.local_transaction` says. A listener may make one within the reader's call."""
    touch = session.one_thread.touch
    check = None if turns.within_call else check_no_reader
    block, keys = await turns.at_once(partial(touch, partial(_begin, session, name, check)))
    transaction = LocalTransaction(keys)
    try:
        try:
            yield transaction
        finally:
            transaction.end()
        storing = await turns.begin(touch, partial(block.make, keys))
    except BaseException:
        block.left = True
        await turns.surely(partial(touch, block.take_back))
        raise
    await asyncio.shield(storing)


def _begin(
    session: Session, name: TopicPartition | None, check: Callable[[], None] | None
) -> tuple[Block, BufferedKeys]:
    if check is not None:
        check()
    block = Block(session, name)
    try:
        session.asking.transaction = block
        return block, block.buffered()
    except BaseException:
        block.left = True
        block.take_back()
        raise
