"""What a new leader says of the high watermark, which may be behind what its predecessor has told."""

from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.node.fetch_reply import FetchReply
from tailrace.node.handlers.fetch import Reading, read_all
from tailrace.protocol.columns import encode
from tailrace.protocol.messages import FetchEntry


@pytest.mark.parametrize(("epoch_start", "told"), [(9, -1), (5, 5), (0, 5)])
def test_a_fetch_tells_it_only_once_it_is_known(epoch_start: int, told: int) -> None:
    log: Any = SimpleNamespace(log_start_offset=0, high_watermark=5, epoch_start=epoch_start, name="t-0")
    storage: Any = SimpleNamespace(read=lambda *args: [args[-1](encode([b"value"]))])
    reading = Reading(FetchEntry(bytes(16), 0, 3, 2, 1_000), log, 5)
    [result] = read_all(storage, [reading], FetchReply(1_000, None))
    assert (result.high_watermark, result.batches) == (told, 1)
