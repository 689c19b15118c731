"""Lines between parent and clients: whole again however the pipe cuts them."""

import os

from tailrace.bench.lines import Done, Ear, Ready, Sample, Start, Until, decode_command, encode
from tailrace.bench.verify import Seen


def test_commands() -> None:
    for command in (Start(5), Until({0: 7, 3: 9})):
        assert decode_command(encode(command)) == command


def test_lines_are_put_together() -> None:
    seen = Seen(sequences={0: "x" * 3_000}, examples=["a\nb"])
    said = [Ready(), Sample(at_ns=5, records=7, latencies={5: 3}), Done(sent=3, seen=seen)]
    data = b"".join(map(encode, said))
    reader, writer = os.pipe()
    ear = Ear(reader)
    assert ear.listen() == ([], True)
    heard = []
    for start in range(0, len(data), 700):
        os.write(writer, data[start : start + 700])
        lines, more = ear.listen()
        assert more
        heard += lines
    os.close(writer)
    assert heard == said
    assert ear.listen() == ([], False)
    os.close(reader)
