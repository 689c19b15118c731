"""The figures of a test as JSON."""

import platform
from datetime import UTC, datetime
from typing import Any

import msgspec

from tailrace import __version__

from .results import Results


def facts(results: Results) -> dict[str, Any]:
    """What was measured where, for who reads it later."""
    return {
        "tailrace": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "mode": results.spec.mode,
    }


def json_of(results: Results) -> str:
    """One object; names end with their units."""
    fields = {
        **facts(results),
        "line": results.line(),
        "warm_up_records": results.spec.warm_up_records,
        **msgspec.to_builtins(results),
    }
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode()
