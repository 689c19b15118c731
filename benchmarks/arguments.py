"""Types of the benchmarks' options, which say what is wrong with a value; and how one runs another."""

import subprocess
from argparse import ArgumentTypeError
from math import isfinite
from pathlib import Path
from typing import Any, Final

TIDY_S: Final = 30.0
"""Who is interrupted removes its cluster; it gets so long."""


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0 on: bytes, or milliseconds that may be none."""
    return _whole(text, 0)


def positives(text: str) -> list[int]:
    """Whole numbers from 1 on with commas between, or nothing."""
    return [positive(part) for part in text.split(",") if part]


def amount(text: str) -> float:
    """More than 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (number > 0 and isfinite(number)):
        raise ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def share(text: str) -> float:
    """More than 0, at most 1."""
    number = amount(text)
    if number > 1:
        raise ArgumentTypeError(f"{text!r} is more than 1")
    return number


def output_file(text: str) -> Path:
    """A file in a folder that is there: else all would have been measured for nothing."""
    file = Path(text)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise ArgumentTypeError(f"{text!r} is no file in a folder that is there")
    return file


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return number


def run(command: list[str], **options: Any) -> tuple[int, str]:
    """Exit code and stdout (if it is `subprocess.PIPE`) of a child, which Ctrl-C lets tidy up."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            process.communicate(timeout=TIDY_S)
            raise
    return process.returncode, output or ""


def output_of(command: list[str], **options: Any) -> str:
    """What it prints. Raises CalledProcessError if its exit code is not 0."""
    code, output = run(command, stdout=subprocess.PIPE, **options)
    if code:
        raise subprocess.CalledProcessError(code, command, output)
    return output
