"""How fast a batch of 1,000 records of 100 bytes is encoded and decoded; medians.

    python benchmarks/codec.py [--records 1000] [--bytes 100] [--repeat 31] [--json]

"values" decodes to a list of bytes, "records" to a list of `tailrace.Record`, "arrow" to a pyarrow
RecordBatch. Each includes the CRC and the check of every length. "varied" values are 0.5 to 1.5 times
`--bytes` long. The row line is Kafka's encoding (magic 2), read by the same `decode`.
"""

import argparse
import json
import platform
import random
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import google_crc32c
from arguments import natural, positive

from tailrace.protocol.columns import encode
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import decode
from tailrace.protocol.record import Headers

CALLS = 20
BASE_TIMESTAMP = 1_700_000_000_000


class Case(NamedTuple):
    """What is measured, and how many bytes of keys and values one call handles."""

    name: str
    call: Callable[[], object]
    payload_bytes: int


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    microseconds: float
    records_per_s: float
    megabytes_per_s: float


def main() -> None:
    """Measure every case and print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=positive, default=1_000, help="records a batch")
    parser.add_argument("--bytes", type=natural, default=100, help="bytes a value")
    parser.add_argument(
        "--repeat", type=int, default=31, help=f"rounds of {CALLS} calls; the median is shown"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    figures = [
        measure(case, options.records, options.repeat) for case in cases(options.records, options.bytes)
    ]
    if options.json:
        about = {"records": options.records, "bytes": options.bytes, "python": platform.python_version()}
        print(json.dumps(about | {"figures": [figure._asdict() for figure in figures]}))
        return
    print(
        f"{options.records:,} records of {options.bytes} bytes a batch, Python {platform.python_version()}\n"
    )
    print(f"{'':50}{'us a batch':>12}{'M records/s':>13}{'MB/s':>9}")
    for figure in figures:
        rate = figure.records_per_s / 1e6
        print(f"{figure.name:50}{figure.microseconds:12.1f}{rate:13.2f}{figure.megabytes_per_s:9.0f}")


def cases(count: int, size: int) -> list[Case]:
    """All that is measured."""
    source = random.Random(1)
    fixed = [source.randbytes(size) for _ in range(count)]
    varied = [source.randbytes(source.randint(size // 2, size * 3 // 2)) for _ in range(count)]
    keys = [b"key-%d" % source.randrange(10 ** source.randint(1, 8)) for _ in range(count)]
    holes = [None if place % 10 == 0 else key for place, key in enumerate(keys)]
    stamps = list(range(BASE_TIMESTAMP, BASE_TIMESTAMP + count))
    headers = [[("trace", b"0123456789abcdef")]] * count

    found = []
    found += both("values", fixed)
    found += both("varied values", varied)
    found += both("values, keys, timestamps", fixed, keys, stamps)
    found += both("varied values, keys, timestamps", varied, keys, stamps)
    found += both("values, keys with nulls, timestamps", fixed, holes, stamps)
    found += both("values, keys, timestamps, headers", fixed, keys, stamps, headers)
    text = [b'{"id": %d, "carrier": "%d", "delay": %d}' % (n, n % 16, n * 7 % 90) for n in range(count)]
    for codec in Compression:
        if codec is not Compression.NONE:
            found += both(f"JSON lines, {codec.name.lower()}", text, compression=codec)
    rows = kafka_rows(fixed)
    found.append(Case("Kafka rows: decode to records", lambda: decode(rows).records("t", 0), count * size))
    return found


def both(
    name: str,
    values: Sequence[bytes],
    keys: Sequence[bytes | None] | None = None,
    stamps: int | Sequence[int] = 0,
    headers: Sequence[Headers] | None = None,
    *,
    compression: Compression = Compression.NONE,
) -> list[Case]:
    """Encode, and decode to each shape."""
    batch = encode(values, keys, stamps, headers, compression=compression)
    payload = sum(map(len, filter(None, [*values, *(keys or ())])))
    steps = {
        "encode": lambda: encode(values, keys, stamps, headers, compression=compression),
        "decode to values": lambda: decode(batch).values,
        "decode to records": lambda: decode(batch).records("t", 0),
        "decode to arrow": lambda: decode(batch).to_arrow(),
    }
    return [Case(f"{name}: {step}", call, payload) for step, call in steps.items()]


def kafka_rows(values: list[bytes]) -> bytes:
    """A batch of magic 2 without keys, built here, so that no Kafka client is needed."""
    rows = bytearray()
    for place, value in enumerate(values):
        row = b"\x00\x00" + varint(place) + b"\x01" + varint(len(value)) + value + b"\x00"
        rows += varint(len(row)) + row
    count = len(values)
    back = struct.pack(">hiqqqhii", 0, count - 1, BASE_TIMESTAMP, BASE_TIMESTAMP, -1, -1, -1, count) + rows
    return struct.pack(">qiibI", 0, len(back) + 9, -1, 2, google_crc32c.value(back)) + back


def varint(number: int) -> bytes:
    """Zigzag of a number that is not negative."""
    number *= 2
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def measure(case: Case, count: int, repeat: int) -> Figure:
    """The median of `repeat` rounds."""
    case.call()
    rounds = []
    for _ in range(repeat):
        start = time.perf_counter()
        for _ in range(CALLS):
            case.call()
        rounds.append((time.perf_counter() - start) / CALLS)
    median = statistics.median(rounds)
    return Figure(case.name, median * 1e6, count / median, case.payload_bytes / median / 1e6)


if __name__ == "__main__":
    main()
