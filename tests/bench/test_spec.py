"""Settings of a load test: defaults by mode, and what is refused before anything is started."""

from typing import Any

import pytest

from tailrace.bench.records import HEADER_BYTES, keys_of
from tailrace.bench.spec import BATCH_SIZE_MAX, RECORDS_DEFAULT, Spec, check_shares, completed
from tailrace.consumer.config import ConsumerConfig
from tailrace.producer.config import ProducerConfig
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import GIB, MIB, RECORD_BYTES_MAX


def test_defaults() -> None:
    assert completed(Spec(mode="produce")).records == RECORDS_DEFAULT
    assert completed(Spec(mode="e2e", record_bytes=MIB)).records == GIB // MIB
    assert completed(Spec(mode="produce", duration_s=3.0)).records is None
    assert completed(Spec(mode="consume", duration_s=3.0)).records == RECORDS_DEFAULT
    assert completed(Spec(mode="consume", topic="t", existing=True)).records is None
    latency = completed(Spec(mode="latency"))
    assert (latency.rate, latency.duration_s, latency.records) == (1_000, 10, None)
    assert completed(Spec(mode="latency", records=500)).duration_s is None


def test_clients_take_what_a_test_takes() -> None:
    options: dict[str, Any] = {"acks": "1", "batch_bytes": BATCH_SIZE_MAX, "compression": "zstd"}
    spec = completed(Spec(mode="e2e", bootstrap_servers="localhost:1", **options))
    assert ProducerConfig(**spec.producer_options).acks_wanted == 1  # type: ignore[arg-type]
    assert ConsumerConfig(**spec.consumer_options).auto_offset_reset == "earliest"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "produce", "producers": 0}, "producers is 0; it is 1 to"),
        ({"mode": "produce", "record_bytes": 0}, "record_bytes is 0; it is 1 to"),
        ({"mode": "latency", "record_bytes": HEADER_BYTES - 1}, "record_bytes is 23; it is 24 .a header"),
        ({"mode": "e2e", "verify": True, "record_bytes": 8}, "it is 24 .a header that tells records apart"),
        ({"mode": "produce", "record_bytes": 10 * MIB}, "record_bytes is 10485760"),
        ({"mode": "e2e", "record_bytes": 8 * MIB - 5, "keys": 11}, "it is 1 to 8388602 beside a key"),
        ({"mode": "produce", "records": 0}, "records is 0; it is more than 0"),
        ({"mode": "produce", "rate": -5.0}, "rate is -5; it is more than 0"),
        ({"mode": "produce", "rate": float("nan")}, "rate is nan; it is more than 0, below 1e.15"),
        ({"mode": "produce", "records": 1, "producers": 2}, "1 records are too few for 2 producers"),
        ({"mode": "produce", "acks": "0", "verify": True}, "there is nothing to verify"),
        ({"mode": "consume", "duration_s": 1.0, "verify": True}, "read the records again and again"),
        ({"mode": "consume", "rate": 5.0}, "a rate is for producers"),
        ({"mode": "produce", "batch_bytes": 0}, "batch_bytes is 0"),
        ({"mode": "produce", "batch_bytes": 16 * MIB}, "batch_bytes is 16777216; it is 1 to 15728640"),
        ({"mode": "produce", "linger_ms": -1.0}, "linger_ms is -1"),
        ({"mode": "produce", "linger_ms": float("inf")}, "linger_ms is inf"),
        ({"mode": "produce", "keys": -1}, "keys is -1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        completed(Spec(**options))


def test_the_largest_record_fits_beside_its_key() -> None:
    completed(Spec(mode="produce", record_bytes=RECORD_BYTES_MAX))
    completed(Spec(mode="produce", record_bytes=RECORD_BYTES_MAX - len(b"key-10"), keys=11))


def test_every_consumer_needs_a_partition() -> None:
    check_shares(Spec(mode="produce", consumers=3))
    check_shares(Spec(mode="e2e", consumers=3, partitions=3))
    for spec in (Spec(mode="e2e", consumers=3), Spec(mode="produce", consumers=3, verify=True)):
        with pytest.raises(InvalidArgumentError, match="3 consumers cannot share 1 partition"):
            check_shares(spec)


def test_shares_add_up() -> None:
    spec = Spec(mode="produce", records=10, producers=3)
    assert [spec.share(index) for index in range(3)] == [4, 3, 3]
    assert Spec(mode="produce").share(0) is None


def test_keys() -> None:
    assert keys_of(5, 2) == [b"key-0", b"key-1", b"key-0", b"key-1", b"key-0"]
    assert keys_of(5, 0) is None
