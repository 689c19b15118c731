"""`--remote`: clients whose engines know no way but tcp."""

import pytest

from tailrace import Consumer, Producer
from tailrace.bench.consuming import RemoteConsumer
from tailrace.bench.producing import RemoteProducer


@pytest.mark.parametrize(
    ("kind", "local"), [(RemoteProducer, False), (RemoteConsumer, False), (Producer, True), (Consumer, True)]
)
def test_engines(kind: type[Producer | Consumer], local: bool) -> None:
    engine = kind._open("127.0.0.1:1", name="never connected")
    assert engine._loop._local is local
    engine.close()
