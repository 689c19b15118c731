"""The figures of a test as JSON, and what to know of where they were measured."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from tailrace import __version__

from .results import Results
from .spec import OF_READING, OF_WRITING, Spec

_CPUS: Final = Path("/proc/cpuinfo")


def facts(results: Results) -> dict[str, Any]:
    """What was measured where, for who reads it later. The machine and its versions are the clients'.

    `cpu` is None where its model is not known; `cpus` are those that may be used.
    """
    return {
        "tailrace": __version__,
        "python": platform.python_version(),
        "pyzmq": version("pyzmq"),
        "lmdb": version("lmdb"),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "mode": results.spec.mode,
    }


def settings(spec: Spec) -> dict[str, Any]:
    """What was in effect, by the names of the fields, without what says nothing in this test."""
    left_out: list[str] = []
    if spec.only_reads:
        left_out += OF_WRITING
    elif spec.mode == "produce" and not spec.verify:
        left_out += OF_READING
    return {name: value for name, value in msgspec.to_builtins(spec).items() if name not in left_out}


def json_of(results: Results) -> str:
    """One object; names end with their units."""
    fields = {
        **facts(results),
        "line": results.line(),
        "warm_up_records": results.spec.warm_up_records,
        **msgspec.to_builtins(results),
        "spec": settings(results.spec),
    }
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode()


def _cpu() -> str | None:
    """Its model, as far as it is told."""
    try:
        fields = [line.partition(":") for line in _CPUS.read_text().splitlines()]
    except OSError:
        fields = []
    models = [value.strip() for name, _, value in fields if name.strip() == "model name"]
    return models[0] if models else platform.processor() or None
