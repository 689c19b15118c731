"""Options that nobody knows, and those that are listed twice."""

import inspect

import pytest

from tailrace.client.admin import Admin
from tailrace.client.options import keyword_options, reject_unknown
from tailrace.consumer import Consumer
from tailrace.consumer.config import ConsumerConfig
from tailrace.producer import Producer
from tailrace.producer.config import ProducerConfig
from tailrace.protocol.errors import InvalidArgumentError


def test_nothing_unknown_is_fine() -> None:
    reject_unknown("Producer", {}, ["linger_ms"])


def test_the_message_names_what_was_meant_and_what_there_is() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        reject_unknown("Producer", {"linger": 5, "zzz": 1}, ["linger_ms", "batch_size"])
    assert str(caught.value) == (
        "Producer has no option 'linger'; did you mean 'linger_ms'?; Producer has no option 'zzz' "
        "(options: batch_size, linger_ms)"
    )


def test_options_of_kafka_clients_are_explained() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"'retries': leave it out.*'heartbeat_interval_ms': leave it out"
    ):
        reject_unknown("Producer", {"retries": 3, "heartbeat_interval_ms": 1}, ["request_timeout_ms"])


def test_options_are_those_that_can_be_given_by_keyword() -> None:
    def function(self: object, servers: str, *topics: str, linger_ms: int = 1, **unknown: object) -> None: ...

    assert keyword_options(function) == ["servers", "linger_ms"]


def test_admin_refuses_an_unknown_option_before_anything_starts() -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'bootstrap_servers'"):
        Admin(bootstrap_server="127.0.0.1:1")  # type: ignore[call-arg]


class TakenError(Exception):
    """What a config was made with."""


@pytest.mark.parametrize(("client", "config"), [(Producer, ProducerConfig), (Consumer, ConsumerConfig)])
def test_a_client_has_the_options_of_its_config_and_hands_all_of_them_on(
    client: type, config: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are listed twice: for editors and help() at the client, and where they are checked."""
    theirs = inspect.signature(config).parameters
    listed = inspect.signature(client).parameters
    ours = {name: listed[name] for name in listed if name not in {"topics", "unknown"}}
    assert {name: (one.default, one.annotation) for name, one in ours.items()} == {
        name: (one.default, one.annotation) for name, one in theirs.items()
    }

    def take(**options: object) -> None:
        raise TakenError(options)

    monkeypatch.setattr(f"{client.__module__}.{config.__name__}", take)
    given = {name: object() for name in ours}
    with pytest.raises(TakenError) as taken:
        client(**given)
    assert taken.value.args == (given,)
