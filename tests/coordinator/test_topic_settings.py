"""Names and configuration of topics: what is taken, and what the errors say."""

import pytest

from tailrace.coordinator.topic_settings import check_topic_name, parse_topic_config
from tailrace.protocol.cluster import TopicConfig
from tailrace.protocol.errors import InvalidConfigError, InvalidTopicError


@pytest.mark.parametrize("name", ["a", "flights", "A-b_c.9", "...", "x" * 249])
def test_good_names(name: str) -> None:
    check_topic_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "a\n", "x" * 250, "x" * 4096])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidTopicError) as raised:
        check_topic_name(name)
    assert len(str(raised.value)) < 300


def test_defaults() -> None:
    assert parse_topic_config({}, 1) == TopicConfig(-1, -1, 1)


@pytest.mark.parametrize(
    "config",
    [
        {"retention.ms": 5, "retention.bytes": "7"},
        {"retention_ms": " 5 ", "retention.bytes": 7},
        {"retention_ms": 5, "retention_bytes": 7, "min.insync.replicas": "1"},
    ],
)
def test_keys_with_dots_or_underscores(config: dict[str, str | int]) -> None:
    assert parse_topic_config(config, 1) == TopicConfig(5, 7, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("true", True), (" False", False), (1, True), (0, False), (True, True)],
)
def test_true_and_false(given: str | int, expected: bool) -> None:
    config = parse_topic_config({"unclean.leader.election": given}, 1)
    assert config.unclean_leader_election is expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"retention.hours": 1}, "did you mean 'retention_ms'"),
        ({"retenton_bytes": 1}, "did you mean 'retention_bytes'"),
        ({"zzz": 1}, "there are retention_ms, retention_bytes, min_insync_replicas"),
        ({"retention_ms": 1, "retention.ms": 1}, "given twice"),
        ({"retention_ms": "1d"}, "'1d' is not a whole number"),
        ({"retention_ms": "²"}, "is not a whole number"),
        ({"retention_ms": ""}, "is not a whole number"),
        ({"retention_ms": -2}, "-2 is not from -1"),
        ({"retention_bytes": 2**63}, "is not from -1"),
        ({"min_insync_replicas": 0}, "0 is not from 1"),
        ({"unclean.leader.election": "perhaps"}, "'perhaps' is neither true nor false"),
        ({"unclean_leader_election": 2}, "'2' is neither true nor false"),
        ({"min_insync_replicas": 2}, "replication factor is only 1"),
        ({"k" * 4000: 1}, "unknown topic config"),
        ({"retention_ms": "9" * 4000}, "is not a whole number"),
    ],
)
def test_what_does_not_fit(config: dict[str, str | int], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message) as raised:
        parse_topic_config(config, 1)
    assert len(str(raised.value)) < 300
