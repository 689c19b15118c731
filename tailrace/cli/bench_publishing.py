"""What `tailrace bench` hands out in the end: verdict, files and text, each whatever becomes of the rest."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import exit_codes
from .bench_output import print_results
from .output import discard_stdout, os_error_text, say

if TYPE_CHECKING:
    from tailrace.bench.results import Results


def check_files(json_file: Path | None, report_file: Path | None) -> None:
    """A long test is not to end with a path that cannot be written."""
    if report_file is not None and str(report_file) == "-":
        raise click.UsageError("--report is a page to open in a browser: name a file for it")
    if json_file is not None and report_file is not None and json_file.absolute() == report_file.absolute():
        raise click.UsageError(f"--json and --report both name {report_file}: give each a file of its own")
    for file in (json_file, report_file):
        if file is not None and str(file) != "-" and not file.absolute().parent.is_dir():
            raise click.UsageError(f"{file}: there is no folder {file.absolute().parent}")


def publish(results: "Results", json_file: Path | None, report_file: Path | None) -> int:
    """Say what is wrong, write the files, print the text; the exit code. Stdout is last: it may be a pipe
    from which nobody reads."""
    from tailrace.bench.document import json_of
    from tailrace.bench.report import html_of

    _say_what_is_wrong(results)
    json, json_to_stdout = json_of(results), str(json_file) == "-"
    codes = [_code_of(results)]
    if json_file is not None and not json_to_stdout:
        codes.append(_write(json_file, json + "\n"))
    if report_file is not None:
        codes.append(_write(report_file, html_of(results)))
    codes.append(_print(results, json if json_to_stdout else None))
    return next((code for code in codes if code != exit_codes.OK), exit_codes.OK)


def _say_what_is_wrong(results: "Results") -> None:
    if results.interrupted:
        say(f"interrupted: these are the figures up to then{results.doubt}")
    if results.problem:
        say(f"Error: {results.problem}{results.doubt}")
    if results.verification is not None and not results.verification.holds:
        say(results.verification.text())


def _code_of(results: "Results") -> int:
    if results.interrupted:
        return exit_codes.INTERRUPTED
    failed = any(client.failed for client in results.clients)
    verdict = results.verification
    holds = verdict is None or verdict.holds
    return exit_codes.OK if holds and not failed and not results.problem else exit_codes.ERROR


def _write(file: Path, text: str) -> int:
    try:
        file.write_text(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        say(f"Error: {click.FileError(str(file), reason).format_message()}")
        return exit_codes.ERROR
    return exit_codes.OK


def _print(results: "Results", json: str | None) -> int:
    """In place of the text, `json`."""
    try:
        if json is None:
            print_results(results)
        else:
            click.echo(json)
    except BrokenPipeError:
        discard_stdout()
        return exit_codes.BROKEN_PIPE
    except OSError as error:
        discard_stdout()
        say(f"Error: {os_error_text(error)}")
        return exit_codes.ERROR
    return exit_codes.OK
