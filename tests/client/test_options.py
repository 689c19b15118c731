"""Options that nobody knows."""

import pytest

from tailrace.client.admin import Admin
from tailrace.client.options import keyword_options, reject_unknown
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
