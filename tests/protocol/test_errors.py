"""Errors: each code has one class, and survives the trip to a peer and back."""

import pytest

from tailrace.protocol import errors
from tailrace.protocol.errors import ERROR_CLASSES, ErrorCode, TailraceError, error_from
from tailrace.protocol.wire import error_info

WITHOUT_A_CLASS = {ErrorCode.NONE, ErrorCode.STALE_CONTROLLER_EPOCH}


def test_every_code_has_its_own_class() -> None:
    assert set(ERROR_CLASSES) == set(ErrorCode) - WITHOUT_A_CLASS
    assert len(set(ERROR_CLASSES.values())) == len(ERROR_CLASSES)
    for code, cls in ERROR_CLASSES.items():
        assert cls.code is code
        assert cls.__doc__


def test_every_class_is_reachable_by_its_code() -> None:
    classes = {
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, TailraceError)
    }
    assert classes == set(ERROR_CLASSES.values())


@pytest.mark.parametrize("cls", ERROR_CLASSES.values(), ids=lambda cls: cls.__name__)
def test_there_and_back(cls: type[TailraceError]) -> None:
    info = error_info(cls("what to do"))
    again = error_from(info.code, info.message)
    assert type(again) is cls
    assert str(again) == "what to do"
    assert again.retriable is cls.retriable


def test_a_code_of_a_newer_peer() -> None:
    error = error_from(9_999, "something new")
    assert type(error) is TailraceError
    assert str(error) == "error 9999 from a newer peer: something new"
    assert not error.retriable


def test_what_a_retry_can_mend() -> None:
    retriable = {code.name for code, cls in ERROR_CLASSES.items() if cls.retriable}
    assert retriable == {
        "BUSY", "SHUTTING_DOWN", "TIMED_OUT", "NOT_ENOUGH_NODES", "NOT_LEADER", "FENCED_LEADER_EPOCH",
        "UNKNOWN_LEADER_EPOCH", "LEADER_NOT_AVAILABLE", "STORAGE_FULL", "STORAGE_FAULT", "CONNECTION_FAILED",
        "BUFFER_FULL", "NOT_ENOUGH_REPLICAS", "STALE_PARTITION_EPOCH", "UNKNOWN_FETCH_SESSION",
        "NOT_COMMITTED",
    }  # fmt: skip


def test_numbers_on_the_wire_stay() -> None:
    assert {code.name: int(code) for code in ErrorCode} == {
        "NONE": 0, "UNKNOWN": 1, "MALFORMED_REQUEST": 2, "UNSUPPORTED_VERSION": 3, "REQUEST_TOO_LARGE": 4,
        "BUSY": 5, "SHUTTING_DOWN": 6, "TIMED_OUT": 7, "CORRUPT_BATCH": 10, "BATCH_TOO_LARGE": 11,
        "INVALID_TIMESTAMP": 12, "INVALID_RECORD": 13, "UNKNOWN_TOPIC": 20, "UNKNOWN_PARTITION": 21,
        "TOPIC_EXISTS": 22, "INVALID_TOPIC": 23, "INVALID_CONFIG": 24, "NOT_ENOUGH_NODES": 25,
        "LIMIT_EXCEEDED": 26, "NOT_LEADER": 30, "FENCED_LEADER_EPOCH": 31, "UNKNOWN_LEADER_EPOCH": 32,
        "LEADER_NOT_AVAILABLE": 33, "NOT_ENOUGH_REPLICAS": 34, "STALE_PARTITION_EPOCH": 35,
        "NOT_COMMITTED": 36,
        "OFFSET_OUT_OF_RANGE": 40, "UNKNOWN_FETCH_SESSION": 41, "OUT_OF_ORDER_SEQUENCE": 50,
        "FENCED_PRODUCER": 51, "UNKNOWN_PRODUCER_ID": 52, "STORAGE_FULL": 60, "STORAGE_FAULT": 61,
        "STALE_CONTROLLER_EPOCH": 70, "STALE_NODE_EPOCH": 71, "UNKNOWN_NODE": 72, "NODE_ID_IN_USE": 73,
        "LOCAL_PATH": 75, "UNKNOWN_GROUP": 80, "INVALID_GROUP": 81, "GROUP_NOT_EMPTY": 82,
        "UNKNOWN_MEMBER": 83, "FENCED_MEMBER": 84, "INSTANCE_ID_IN_USE": 85,
        "CONNECTION_FAILED": 100, "CLOSED": 101, "BUFFER_FULL": 102, "DELIVERY_FAILED": 103,
        "INVALID_ARGUMENT": 104, "DATA_FOLDER": 105, "SERIALIZATION": 106,
        "CONCURRENT_USE": 107,
        "WORKER_FAILED": 108,
    }  # fmt: skip


def test_the_builtin_kinds_they_also_are() -> None:
    assert issubclass(errors.TimedOutError, TimeoutError)
    assert issubclass(errors.ConnectionFailedError, ConnectionError)
    assert issubclass(errors.InvalidArgumentError, ValueError)
