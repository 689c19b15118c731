"""`tailrace produce` with CSV and headers: what becomes of rows, and what is said of bad ones."""

import gzip
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, Consumer
from tailrace.protocol.record import Record
from tailrace.testing import Cluster

_numbers = count(1)
Run = Callable[..., Any]

FLIGHTS = """carrier,flight,when,note
UA,1545,2013-01-01T05:00,on time
AA,1141,2013-01-01T07:00:00+01:00,"a ""quoted"",
note"

B6,725,1357016400000,ü
"""


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"produced-{next(_numbers)}"
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic(name)
    return name


@pytest.fixture
def stored(cluster: Cluster, topic: str) -> Callable[[int], list[Record[Any, Any]]]:
    def read(wanted: int) -> list[Record[Any, Any]]:
        with Consumer(
            topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            assert sum(consumer.end_offsets(consumer.assignment()).values()) == wanted
            return [record for _, record in zip(range(wanted), consumer, strict=False)]

    return read


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_become_json(
    topic: str, tailrace: Run, stored: Callable[[int], list[Any]], tmp_path: Path, compressed: bool
) -> None:
    file = tmp_path / "flights.csv"
    file.write_bytes(gzip.compress(FLIGHTS.encode()) if compressed else b"\xef\xbb\xbf" + FLIGHTS.encode())
    options = ("--csv", "--key-column", "carrier", "--timestamp-column", "when", "-H", "source=file")
    done = json.loads(tailrace("produce", topic, file, *options, "--json").stdout)
    assert done["records"] == 3
    records = stored(3)
    assert [record.key for record in records] == [b"UA", b"AA", b"B6"]
    assert [record.timestamp for record in records] == [
        1_357_016_400_000,
        1_357_020_000_000,
        1_357_016_400_000,
    ]
    assert json.loads(records[1].value) == {
        "carrier": "AA", "flight": "1141", "when": "2013-01-01T07:00:00+01:00", "note": 'a "quoted",\nnote',
    }  # fmt: skip
    assert [tuple(record.headers) for record in records] == [(("source", b"file"),)] * 3


def test_one_column_as_value(topic: str, tailrace: Run, stored: Callable[[int], list[Any]]) -> None:
    given = "a;b\n1;x\n2;y\n"
    tailrace("produce", topic, "--csv", "--value-column", "b", "--delimiter", ";", given=given)
    records = stored(2)
    assert [(record.key, record.value) for record in records] == [(None, b"x"), (None, b"y")]


@pytest.mark.parametrize(
    ("given", "message", "sent"),
    [
        ("a,when\n1,5\n2\n3,7\n", "the row that ends in line 3: 1 columns, and the first line names 2", 1),
        ("a,when\n1,5\n\n2,noon\n", "the row that ends in line 4: 'noon' in column 'when' is no time", 1),
        ('a,when\n1,5\n"2,5\n', "behind line 3: unexpected end of data", 1),
        ("a,when\n1,5\n2,1969-01-01\n", "'1969-01-01' in column 'when' is no time since 1970", 1),
    ],
)
def test_a_row_that_does_not_fit(
    topic: str, tailrace: Run, stored: Callable[[int], list[Any]], given: str, message: str, sent: int
) -> None:
    options = ("--csv", "--key-column", "a", "--timestamp-column", "when")
    said = tailrace("produce", topic, *options, given=given, code=1).stderr
    assert "Error: stdin: " in said
    assert message in said
    assert f"{sent} record{'' if sent == 1 else 's'} known to be stored" in said
    stored(sent)


def test_several_files(topic: str, tailrace: Run, stored: Callable[[int], list[Any]], tmp_path: Path) -> None:
    """One after the other; the one that does not fit is named."""
    first, packed, bad, other = (tmp_path / name for name in ("a.csv", "b.csv.gz", "c.csv", "d.csv"))
    first.write_text("k,v\n1,x\n2,y\n")
    packed.write_bytes(gzip.compress(b"v,k\nz,3\n"))
    bad.write_text("k,v\n4,w\n5\n")
    other.write_text("key,v\n5,u\n")
    options = ("--csv", "--key-column", "k", "--value-column", "v")
    done = tailrace("produce", topic, first, packed, "-", *options, "--json", given="k,v\n9,pipe\n")
    assert json.loads(done.stdout)["records"] == 4
    assert [(record.key, record.value) for record in stored(4)] == [
        (b"1", b"x"), (b"2", b"y"), (b"3", b"z"), (b"9", b"pipe"),
    ]  # fmt: skip
    said = tailrace("produce", topic, packed, bad, first, *options, code=1).stderr
    assert f"Error: {bad}: the row that ends in line 3: 1 columns" in said
    assert "stopped after 2 records, 2 records known to be stored" in said
    said = tailrace("produce", topic, first, other, *options, code=1).stderr
    assert f"Error: {other}: --key-column: there is no column 'k'; there are key, v; stopped after 2" in said
    assert f"Error: {other}: --key-column: " in tailrace("produce", topic, other, *options, code=2).stderr
    lines = tmp_path / "lines"
    lines.write_text("no headers\n")
    assert f"Error: {lines}: line 1 does not" in tailrace("produce", topic, lines, "--headers", code=1).stderr
    assert stored(8)[4].value == b"z"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--csv", "--key-column", "nme"), "there is no column 'nme'; there are name, b"),
        (("--key-column", "name"), "add --csv"),
        (("--csv", "-K", ":"), "CSV has columns"),
        (("--csv", "--delimiter", "ab"), "--delimiter is one character"),
        (("-H", "name"), "write NAME=VALUE"),
    ],
)
def test_wrong_usage(topic: str, tailrace: Run, options: tuple[str, ...], message: str) -> None:
    assert message in tailrace("produce", topic, *options, given="name,b\n1,2\n", code=2).stderr


def test_lines_with_headers(topic: str, tailrace: Run, stored: Callable[[int], list[Any]]) -> None:
    given = "a:1,b:x:y\tkey=value\n\tno header=v\n"
    tailrace("produce", topic, "--headers", "-K", "=", "-H", "all=z", given=given)
    records = stored(2)
    assert [(record.key, record.value) for record in records] == [(b"key", b"value"), (b"no header", b"v")]
    assert [tuple(record.headers) for record in records] == [
        (("all", b"z"), ("a", b"1"), ("b", b"x:y")),
        (("all", b"z"),),
    ]
    printed = tailrace("consume", topic, "-e", "-f", r"%h %s\n").stdout
    assert printed == "all=z,a=1,b=x:y value\nall=z v\n"


def test_headers_are_read_as_they_are_printed(
    topic: str, tailrace: Run, stored: Callable[[int], list[Any]]
) -> None:
    given = "url=http://x/?a=b,at:10:30,a:b=c,empty=\tvalue\n\tnone\n"
    tailrace("produce", topic, "--headers", given=given)
    headers = (("url", b"http://x/?a=b"), ("at", b"10:30"), ("a", b"b=c"), ("empty", b""))
    assert [tuple(record.headers) for record in stored(2)] == [headers, ()]
    printed = tailrace("consume", topic, "-e", "-f", r"%h\t%s\n").stdout
    tailrace("produce", topic, "--headers", given=printed)
    assert [tuple(record.headers) for record in stored(4)[2:]] == [headers, ()]


@pytest.mark.parametrize("bad", ["no tab", "nocolon\tvalue"])
def test_lines_without_their_headers(
    topic: str, tailrace: Run, stored: Callable[[int], list[Any]], bad: str
) -> None:
    said = tailrace("produce", topic, "--headers", given=f"a:1\tfirst\n{bad}\na:1\tthird\n", code=1).stderr
    assert "line 2 does not begin with headers and a tab" in said
    assert [record.value for record in stored(1)] == [b"first"]


def test_times_on_both_sides(cluster: Cluster, topic: str, tailrace: Run) -> None:
    rows = "n,t\n" + "".join(f"{number},{1_000 * number}\n" for number in range(1, 10))
    tailrace("produce", topic, "--csv", "--value-column", "n", "--timestamp-column", "t", given=rows)
    for offsets, expected in (
        ("@3000:6000", "3 4 5"), ("@7500:end", "8 9"), ("@2000:+2s", "2 3"), ("@20000:30000", ""),
    ):  # fmt: skip
        done = tailrace("consume", topic, "-o", offsets).stdout.split()
        assert done == expected.split(), offsets


def test_topics_by_regular_expression(cluster: Cluster, tailrace: Run) -> None:
    with Admin(cluster.bootstrap_servers) as admin:
        for name in ("regex-a", "regex-b", "other-regex-a"):
            admin.create_topic(name)
    listed = tailrace("topic", "list", "-r", "regex-.*", "--json").stdout
    assert [json.loads(line)["name"] for line in listed.splitlines()] == ["regex-a", "regex-b"]
    assert "regex-b  (id" in tailrace("topic", "describe", "-r", "regex-b|nothing").stdout
    assert "would delete topic regex-a" in tailrace("topic", "delete", "-r", "regex-.*").stdout
    tailrace("topic", "delete", "-r", "regex-.*", "--execute")
    tailrace("topic", "create", "regex-c")
    both = ("topic", "delete", "-r", "regex-.*", "jj", "--execute")
    assert "no topic matches jj" in tailrace(*both, code=1).stderr
    assert tailrace("topic", "delete", "-r", "regex-.", ".*-c", "--execute").stdout.count("deleted") == 1
    assert "no topic matches regex-.*" in tailrace("topic", "list", "-r", "regex-.*", code=1).stderr
    assert "is no regular expression" in tailrace("topic", "list", "-r", "(", code=2).stderr
    assert "other-regex-a" in tailrace("topic", "list", "other-regex-a").stdout


def test_completion(cluster: Cluster, topic: str, tailrace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with Consumer(topic, bootstrap_servers=cluster.bootstrap_servers, group_id=f"of-{topic}"):
        for words, expected in (
            (f"tailrace topic describe {topic[:-1]}", topic),
            (f"tailrace consume {topic}", topic),
            ("tailrace group describe of-prod", f"of-{topic}"),
        ):
            monkeypatch.setenv("_TAILRACE_COMPLETE", "bash_complete")
            monkeypatch.setenv("COMP_WORDS", words)
            monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
            assert f"plain,{expected}" in tailrace().stdout.split()
    monkeypatch.delenv("_TAILRACE_COMPLETE")
    for shell in ("bash", "zsh", "fish"):
        assert "_TAILRACE_COMPLETE" in tailrace("completion", shell).stdout
    assert "is not one of" in tailrace("completion", "tcsh", code=2).stderr


def test_what_cannot_be_rows_or_lines(topic: str, tailrace: Run, tmp_path: Path) -> None:
    assert (
        "names 'id' more than once"
        in tailrace("produce", topic, "--csv", given="id,id\n1,2\n", code=2).stderr
    )
    file = tmp_path / "lines.gz"
    file.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert "is gzipped: unpack it (zcat" in tailrace("produce", topic, file, code=2).stderr
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"\xff\xfe\n1\n")
    assert "line 1, which is to name the columns" in tailrace("produce", topic, bad, "--csv", code=1).stderr


@pytest.mark.parametrize(
    "options", [(), ("--value-column", "n"), ("--key-column", "n", "--value-column", "n")]
)
def test_a_row_that_is_no_utf8_is_named_and_those_before_it_are_sent(
    topic: str, tailrace: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"n\n" + b"1\n" * 300 + b"\xff\n2\n")
    said = tailrace("produce", topic, bad, "--csv", *options, code=1).stderr
    assert "the row that ends in line 302: there are bytes that are no UTF-8" in said
    assert "300 records" in said


def test_a_field_may_be_as_large_as_a_record(topic: str, tailrace: Run, tmp_path: Path) -> None:
    large = tmp_path / "large.csv"
    large.write_text("n\n" + "x" * 1_000_000 + "\n")
    tailrace("produce", topic, large, "--csv", "--value-column", "n")
    assert tailrace("consume", topic, "-o", "start", "-e", "-f", "%S").stdout == "1000000"
