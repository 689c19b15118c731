"""docs/options.md has every option that the code has, with its default and its bounds, and no other."""

import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from msgspec import structs

from tailrace import Admin, AsyncAdmin, AsyncConsumer, AsyncProducer, Consumer, Producer
from tailrace.cli.apply_plan import settings_of
from tailrace.cli.cluster_config import ClusterConfig, load_cluster
from tailrace.client.serializers import NAMES
from tailrace.consumer.config import RESETS, STRATEGIES, ConsumerConfig
from tailrace.coordinator.topic_settings import parse_topic_config
from tailrace.producer.config import ProducerConfig
from tailrace.protocol import limits
from tailrace.protocol.cluster import TopicConfig
from tailrace.protocol.compression import Compression
from tailrace.protocol.errors import InvalidArgumentError, InvalidConfigError

with warnings.catch_warnings():  # it reads its own resources in a deprecated way
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka

TEXT: Final = (Path(__file__).resolve().parents[1] / "docs" / "options.md").read_text()
FILE: Final = "The cluster's file"
CLIENTS: Final[dict[str, tuple[type, type, type]]] = {
    "Producer": (Producer, AsyncProducer, kafka.KafkaProducer),
    "Consumer": (Consumer, AsyncConsumer, kafka.KafkaConsumer),
    "Admin": (Admin, AsyncAdmin, kafka.KafkaAdminClient),
}
SAME_IN_KAFKA: Final = {"acks", "enable_idempotence", "consumer_timeout_ms"}
"""Defaults of kafka-python that look different, and are not."""
IN_WORDS: Final = {"bootstrap_servers", "client_id", "partitioner", "partition_assignment_strategy"}
"""Defaults of kafka-python that are told in words."""
SIZES: Final = re.compile(r".*_bytes|batch_size|buffer_memory|max_request_size")
NUMBER: Final = r"(?:-?[\d_*]+(?: - 1)?(?: ?[KMGT]iB)?)"
RANGE: Final = re.compile(rf"(?:`None`, )?({NUMBER} to {NUMBER})")
FAR_OFF: Final = -(10**30)
"""Within no bounds."""
SMALLEST: Final = {"data_dir": "data", "nodes": [{"id": 1}]}
Load = Callable[[Mapping[str, Any]], ClusterConfig]


class Row(NamedTuple):
    """A line of a table."""

    default: str
    values: str
    text: str


def rows_of(section: str) -> dict[str, Row]:
    """A section's table, by the names of the options."""
    lines = re.findall(r"(?m)^\| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|$", section)
    found = {name: Row(*cells) for name, *cells in lines}
    assert len(found) == section.count("\n| ") - 1, "a row that is there twice, or is malformed"
    return found


TABLES: Final = {
    part.partition("\n")[0]: rows_of(part) for part in re.split(r"(?m)^##+ ", TEXT)[1:] if "\n| " in part
}


# ------------------------------------------------------------ as the tables write it


def size(number: int, space: str = " ") -> str:
    """`512 KiB`: in the largest unit that needs no fraction."""
    for exponent, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if number and number % 1024**exponent == 0:
            return f"{number // 1024**exponent}{space}{unit}"
    return str(number)


def count(number: int, form: str = "_") -> str:
    """`60_000`, `2**31`, `2**63 - 1`."""
    for bits in (31, 53, 63):
        if 2**bits - 1 <= number <= 2**bits:
            return f"2**{bits}{' - 1' if number < 2**bits else ''}"
    return f"{number:{form}}"


def shown(name: str, value: object) -> str:
    """A default, in Python."""
    if isinstance(value, str):
        return f'`"{value}"`'
    if value is None or isinstance(value, bool):
        return f"`{value}`"
    assert isinstance(value, int | float)
    assert value == int(value)
    return size(int(value)) if SIZES.fullmatch(name) else count(int(value))


def shown_in_yaml(name: str, value: object) -> str:
    """A default, in a cluster's file."""
    if value == "":
        return "none"
    if isinstance(value, int) and SIZES.fullmatch(name):
        return f"`{size(value, '')}`"
    return f"`{str(value).lower().removeprefix('tcp://')}`"


def words(names: Iterable[str]) -> str:
    """`"one"`, `"another"`."""
    return ", ".join(f'`"{name}"`' for name in names)


def bounds_told(attempt: Callable[[], object]) -> tuple[int, int] | None:
    """What the error says would have fitted, if that is a range of numbers."""
    try:
        attempt()
    except (InvalidArgumentError, InvalidConfigError) as error:
        found = re.search(
            r"(?:from (-?\d+) to (\d+)|within (\d+) and (\d+) (?:bytes|milliseconds))", str(error)
        )
        return None if found is None else (int(found[1] or found[3]), int(found[2] or found[4]))
    return None


def ranges_in(table: str) -> dict[str, str]:
    """The bounds that the rows name."""
    matches = {name: RANGE.fullmatch(row.values) for name, row in TABLES[table].items()}
    return {name: match[1] for name, match in matches.items() if match is not None}


# ------------------------------------------------------------------- the clients


def options_of(client: type) -> dict[str, Any]:
    """A client's options and their defaults, as `help` shows them."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(client).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind in named}


@pytest.mark.parametrize("name", CLIENTS)
def test_options_of_a_client(name: str) -> None:
    plain, for_asyncio, _ = CLIENTS[name]
    assert options_of(for_asyncio) == options_of(plain)
    stated = {option: row.default for option, row in TABLES[name].items()}
    assert stated == {option: shown(option, default) for option, default in options_of(plain).items()}


@pytest.mark.parametrize(("client", "config"), [(Producer, ProducerConfig), (Consumer, ConsumerConfig)])
def test_options_are_the_same_where_they_are_checked(client: type, config: Any) -> None:
    assert {field.name: field.default for field in fields(config)} == options_of(client)


@pytest.mark.parametrize(
    ("name", "make"), [("Producer", ProducerConfig), ("Consumer", ConsumerConfig), ("Admin", Admin)]
)
def test_bounds_of_a_client(name: str, make: Callable[..., object]) -> None:
    told = {}
    for option in options_of(CLIENTS[name][0]):
        bounds = bounds_told(lambda option=option: make(**{option: FAR_OFF}))  # type: ignore[misc]
        if bounds is not None:
            form = size if SIZES.fullmatch(option) else count
            told[option] = " to ".join(map(form, bounds))
    assert told
    assert ranges_in(name) == told


def test_words_that_clients_know() -> None:
    producer, consumer = TABLES["Producer"], TABLES["Consumer"]
    assert consumer["auto_offset_reset"].values == words(RESETS)
    assert consumer["partition_assignment_strategy"].values == words(STRATEGIES)
    for what in ("key", "value"):
        codecs = f"`None`, {words(NAMES)}, a function"
        assert producer[f"{what}_serializer"].values == consumer[f"{what}_deserializer"].values == codecs
    compressions = [each.name.lower() for each in Compression if each is not Compression.NONE]
    assert producer["compression_type"].values == f'`None` (or `"none"`), {words(compressions)}'


@pytest.mark.parametrize(
    ("name", "config", "option"),
    [
        ("Producer", ProducerConfig, "acks"),
        ("Producer", ProducerConfig, "partitioner"),
        ("Consumer", ConsumerConfig, "on_error"),
    ],
)
def test_other_words_are_taken(name: str, config: Callable[..., object], option: str) -> None:
    found = re.findall(r"`(.+?)`", TABLES[name][option].values)
    assert found
    for word in found:
        config(**{option: json.loads(word)})


def test_a_bound_that_is_told_in_words() -> None:
    assert f"1 to {limits.NAME_LENGTH_MAX} letters" in TABLES["Consumer"]["group_id"].values
    assert f"more than {size(limits.FETCH_REPLY_BYTES_MAX)} at a time" in (
        TABLES["Consumer"]["fetch_max_bytes"].text
    )


@pytest.mark.skipif(not kafka.__version__.startswith("3.0."), reason="the document tells of kafka-python 3.0")
@pytest.mark.parametrize("name", CLIENTS)
def test_defaults_of_kafka_python(name: str) -> None:
    client, _, kafka_client = CLIENTS[name]
    theirs = kafka_client.DEFAULT_CONFIG  # type: ignore[attr-defined]
    for option, default in options_of(client).items():
        _, told, stated = TABLES[name][option].text.partition("kafka-python: ")
        differs = option in theirs and theirs[option] != default and option not in SAME_IN_KAFKA
        assert bool(told) == differs, option
        if differs and option not in IN_WORDS:
            assert stated == f"{shown(option, theirs[option])}.", option


# ------------------------------------------------------------------------ topics


def test_options_of_a_topic() -> None:
    created = inspect.signature(Admin.create_topic).parameters
    shape = {name: created[name].default for name in ("partitions", "replication_factor")}
    expected = {
        name: f"`{value}`".lower() if isinstance(value, bool) else str(value)
        for name, value in (shape | structs.asdict(TopicConfig())).items()
    }
    assert {name: row.default for name, row in TABLES["Topics"].items()} == expected


def test_bounds_of_a_topic() -> None:
    told = {
        "partitions": (1, limits.PARTITIONS_PER_TOPIC_MAX),
        "replication_factor": (1, limits.REPLICATION_FACTOR_MAX),
    }
    for name in ("retention_ms", "retention_bytes"):
        bounds = bounds_told(lambda name=name: parse_topic_config({name: FAR_OFF}, 1))  # type: ignore[misc]
        assert bounds is not None
        told[name] = bounds
    assert ranges_in("Topics") == {name: " to ".join(map(count, bounds)) for name, bounds in told.items()}


def test_in_sync_replicas_are_at_most_the_replicas() -> None:
    assert TABLES["Topics"]["min_insync_replicas"].values == "1 to the replication factor"
    for wrong in (0, 3):
        with pytest.raises(InvalidConfigError):
            parse_topic_config({"min_insync_replicas": wrong}, 2)
    assert parse_topic_config({"min.insync.replicas": 2}, 2).min_insync_replicas == 2


# ---------------------------------------------------------------------- the file


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a file with this content."""

    def load_content(content: Mapping[str, Any]) -> ClusterConfig:
        file = tmp_path / "cluster.yaml"
        file.write_text(json.dumps(content))  # JSON is YAML
        return load_cluster(file)

    return load_content


def with_setting(table: str, name: str, value: object) -> dict[str, Any]:
    """The smallest file with one more setting in it."""
    if table == "Coordinator":
        return SMALLEST | {"coordinator": {name: value}}
    if table == "Node":
        return SMALLEST | {"nodes": [{"id": 1, name: value}]}
    return SMALLEST | {name: value}


def keys_known(load: Load, content: Mapping[str, Any]) -> set[str]:
    """Those that are told when a file is refused for its key `zzzz`."""
    with pytest.raises(InvalidConfigError, match="unknown key 'zzzz'; known are ") as caught:
        load(content)
    return set(str(caught.value).partition("known are ")[2].split(", "))


@pytest.mark.parametrize("table", [FILE, "Coordinator", "Node"])
def test_keys_of_the_file(load: Load, table: str) -> None:
    assert TABLES[table].keys() == keys_known(load, with_setting(table, "zzzz", 1))


def test_defaults_of_nodes_are_all_but_the_id(load: Load) -> None:
    assert keys_known(load, SMALLEST | {"node_defaults": {"zzzz": 1}}) == TABLES["Node"].keys() - {"id"}
    assert "all of a node's but `id`" in TABLES[FILE]["node_defaults"].text


@pytest.mark.parametrize("table", ["Coordinator", "Node"])
def test_defaults_of_the_file(load: Load, table: str) -> None:
    cluster = load(SMALLEST)
    settings = settings_of(cluster.coordinator if table == "Coordinator" else cluster.nodes[0])
    stated = {name: row.default for name, row in TABLES[table].items() if row.default != "required"}
    assert stated == {name: shown_in_yaml(name, value) for name, value in settings.items()}


def test_what_the_file_must_have(load: Load) -> None:
    tables = (FILE, "Coordinator", "Node")
    required = {name for table in tables for name, row in TABLES[table].items() if row.default == "required"}
    assert required == {*SMALLEST, "id"}
    for name in SMALLEST:
        with pytest.raises(InvalidConfigError, match=f"'{name}' is missing"):
            load({key: value for key, value in SMALLEST.items() if key != name})
    with pytest.raises(InvalidConfigError, match="'id' is missing"):
        load(SMALLEST | {"nodes": [{}]})


def test_what_the_file_may_leave_out(load: Load) -> None:
    assert TABLES[FILE]["insecure"].default == "`false`"
    address = {"listen": "0.0.0.0:0"}
    with pytest.raises(InvalidConfigError, match="insecure: true"):
        load(SMALLEST | {"coordinator": address})
    load(SMALLEST | {"coordinator": address, "insecure": True})


@pytest.mark.parametrize("table", ["Coordinator", "Node"])
def test_bounds_of_the_file(load: Load, table: str) -> None:
    told = {}
    for name in TABLES[table]:
        content = with_setting(table, name, FAR_OFF)
        bounds = bounds_told(lambda content=content: load(content))  # type: ignore[misc]
        if bounds is not None:
            numbers = [size(n, "") if SIZES.fullmatch(name) else count(n, "") for n in bounds]
            told[name] = " to ".join(numbers)
    assert told
    assert ranges_in(table) == told


def test_words_of_the_file(load: Load) -> None:
    for table in (FILE, "Coordinator", "Node"):
        for name, row in TABLES[table].items():
            for word in re.findall(r"`(\w+)`", row.values):
                load(with_setting(table, name, {"true": True, "false": False}.get(word, word)))
    with pytest.raises(InvalidConfigError, match="expected commit or relaxed"):
        load(with_setting("Node", "flush", "never"))
    assert TABLES["Node"]["flush"].values == "`commit`, `relaxed`"
    assert TABLES["Node"]["rack"].values == f"text of 1 to {limits.NAME_LENGTH_MAX} characters"
    assert TABLES[FILE]["nodes"].values == f"a list of 1 to {limits.NODES_MAX}"


def test_the_publisher_is_at_the_coordinators_host(load: Load) -> None:
    cluster = load(with_setting("Coordinator", "listen", "127.0.0.2:7171"))
    assert cluster.coordinator.publisher_tcp == "tcp://127.0.0.2:0"


def test_no_other_tables() -> None:
    assert TABLES.keys() == {*CLIENTS, "Topics", FILE, "Coordinator", "Node"}
