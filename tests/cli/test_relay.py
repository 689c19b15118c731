"""Log lines on their way from the children to whoever reads them, or does not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.cli.relay import Relay


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """A source to write to and its reader, and the relay's output and its reader."""
    source_reader, source_writer = os.pipe()
    out_reader, out_writer = os.pipe()
    fds = source_reader, source_writer, out_reader, out_writer
    yield fds
    for fd in fds:
        os.close(fd)


def test_lines_get_their_senders_name(pipes: tuple[int, int, int, int]) -> None:
    reader, writer, out, out_writer = pipes
    relay = Relay(out_writer)
    os.write(writer, b"one\ntw")
    assert relay.pump("node-1", reader)
    os.write(writer, b"o\n")
    assert relay.pump("node-1", reader)
    assert os.read(out, 1_000) == b"node-1      | one\nnode-1      | two\n"


def test_the_last_line_needs_no_newline(pipes: tuple[int, int, int, int]) -> None:
    _, _, out, out_writer = pipes
    relay = Relay(out_writer)
    other_reader, other_writer = os.pipe()
    os.write(other_writer, b"dying words")
    os.close(other_writer)
    while relay.pump("node-1", other_reader):
        pass
    os.close(other_reader)
    assert os.read(out, 1_000) == b"node-1      | dying words\n"


def test_a_reader_that_does_not_read_costs_lines_not_time(pipes: tuple[int, int, int, int]) -> None:
    _, _, out, out_writer = pipes
    relay = Relay(out_writer)
    for _ in range(2_000):
        relay.say("node-1", b"x" * 100)
    assert len(os.read(out, 1 << 20)) <= 1 << 16
    relay.say("node-1", b"after")
    lines = os.read(out, 1_000).splitlines()
    assert lines[0].endswith(b" lines dropped: nobody took them]")
    assert lines[1] == b"node-1      | after"


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    relay = Relay(writer)
    os.close(reader)
    relay.say("node-1", b"line")
    os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_no_error(pipes: tuple[int, int, int, int]) -> None:
    _, _, out, out_writer = pipes
    relay_fd, full = os.dup(out_writer), os.open("/dev/full", os.O_WRONLY)
    relay = Relay(relay_fd)
    os.dup2(full, relay_fd)
    relay.say("node-1", b"lost")
    os.dup2(out_writer, relay_fd)
    relay.say("node-1", b"after")
    for fd in (relay_fd, full):
        os.close(fd)
    assert os.read(out, 1_000).splitlines() == [
        b"[1 lines dropped: nobody took them]",
        b"node-1      | after",
    ]


def test_a_very_long_line_is_cut(pipes: tuple[int, int, int, int]) -> None:
    _, _, out, out_writer = pipes
    Relay(out_writer).say("node-1", b"x" * 100_000)
    assert len(os.read(out, 1 << 20)) <= 4_096
