"""The command itself: help, exit codes, errors in one line, and what it imports."""

import errno
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import click
import pytest

from tailrace.cli.main import COMMANDS, cli
from tailrace.cli.output import os_error_text

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "configs" / "local.yaml"
COMMAND = (sys.executable, "-P", "-m", "tailrace")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_names_every_command_as_the_command_itself_does(tailrace: Run) -> None:
    text = tailrace("--help").stdout
    context = click.Context(cli)
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} " in text
        assert summary in text
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help
    assert tailrace("-h").stdout == text


@pytest.mark.parametrize(
    "name", [*COMMANDS, "topic create", "topic delete", "cluster status", "cluster ready"]
)
def test_every_command_has_help(tailrace: Run, name: str) -> None:
    assert tailrace(*name.split(), "--help").stdout.startswith(f"Usage: tailrace {name} ")


def test_version(tailrace: Run) -> None:
    assert tailrace("--version").stdout == f"tailrace {version('tailrace')}\n"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["topik"], "No such command 'topik'; did you mean 'topic'?"),
        (["zzz"], "No such command 'zzz'"),
        (["topic", "create"], "Missing argument 'NAME'"),
        (["topic", "create", "t", "-p", "0"], "0 is not in the range"),
        (["topic", "create", "t", "-c", "retention"], "write KEY=VALUE"),
        (["topic", "create", "t", "-c", "a=1", "-c", "a=2"], "given twice"),
        (["consume", "t", "-o", "soon"], "'soon' is no place to read from"),
        (["consume", "t", "-f", "%z"], "unknown format '%z'"),
        (["consume", "t", "-f", "%s", "--json"], "--format and --json exclude each other"),
        (["consume", "t", "-o", "@-5m:@-1h"], "ends before it begins"),
        (["produce", "t", "-K", ""], "it is empty"),
        (["produce", "t", "-K", r"\q"], "unknown escape"),
        (["topic", "create", "t", "-c", "retention_ms=7w"], "'7w' is no duration"),
        (["topic", "create", "t", "-c", "retention_bytes=1XB"], "'1XB' is no size"),
        (["consume", "t", "-n", "-1"], "'-1' is no count"),
        (["node", "--config", "x"], "Missing option '--id'"),
        (["up"], "Missing argument 'CONFIG'"),
        (["up", "x", "--port", "70000"], "70000 is not in the range"),
    ],
)
def test_wrong_usage_is_code_2(tailrace: Run, args: list[str], reason: str) -> None:
    assert reason in tailrace(*args, code=2).stderr


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["up", "none.yaml"], "Error: none.yaml: no such file or directory\n"),
        (["node", "--config", "none.yaml", "--id", "1"], "Error: none.yaml: no such file or directory\n"),
        (["topic", "list", "-b", "nowhere"], "Error: 'nowhere' is no address"),
        (
            ["topic", "list", "-b", "127.0.0.1:1", "--timeout", "0.2"],
            "Error: 127.0.0.1:1: connection refused",
        ),
        (["consume", "t", "-b", "127.0.0.1:1", "--timeout", "0.2"], "Error: 127.0.0.1:1: connection refused"),
        (["cluster", "status", "-b", "127.0.0.1:1", "--timeout", "0.2"], "Error: 127.0.0.1:1: connection"),
    ],
)
def test_an_error_is_one_line_and_code_1(tailrace: Run, args: list[str], line: str) -> None:
    done = tailrace(*args, code=1)
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.slow
def test_who_waits_is_told_for_what(tailrace: Run) -> None:
    def wait(*command: str) -> list[str]:
        return tailrace(*command, "-b", "127.0.0.1:1", "--timeout", 4, code=1).stderr.splitlines()

    commands = [("topic", "list"), ("consume", "t"), ("produce", "t"), ("cluster", "ready")]
    with ThreadPoolExecutor(len(commands)) as at_once:
        for first, last in at_once.map(lambda command: wait(*command), commands):
            assert "waits for the coordinator: 127.0.0.1:1: connection refused: " in first
            assert first.endswith("; trying for 4 s")
            assert last.startswith("Error: 127.0.0.1:1: connection refused")


def test_a_folder_that_cannot_be_made_is_one_line(tailrace: Run) -> None:
    for args in (["node", "--id", "1"], ["coordinator"]):
        done = tailrace(*args, "--config", LOCAL, "--data-dir", "/proc/none", code=1)
        error = done.stderr.splitlines()[-1]
        assert error.startswith("Error: ")
        assert "/proc/none" in error
        assert "Errno" not in error


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams(closed: str) -> None:
    """What would be said there is lost, and nothing else takes their place."""
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND)
    failing = ("topic", "list", "-b", "127.0.0.1:1", "--timeout", "0.2")
    for args, code in ((("--version",), 0), (failing, 1)):
        done = subprocess.run([*shell, *args], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code"),
    [
        pytest.param(("topic", "list", "-b", "127.0.0.1:1", "--timeout", "0.2"), 1, id="error"),
        pytest.param(("topic", "list", "--no-such-option"), 2, id="usage"),
    ],
)
def test_an_error_that_nobody_takes_is_the_same_error(args: tuple[str, ...], code: int) -> None:
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([*COMMAND, *args], stdout=full, stderr=full, check=False).returncode == code


def test_output_that_is_cut_short_is_an_error() -> None:
    """Also where Python does not buffer it, as in most container images."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with tempfile.TemporaryFile() as out:
        done = subprocess.run(
            [*COMMAND, "bench", "produce", "--help"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit)),
        )
        assert (done.returncode, done.stderr) == (1, "Error: file too large\n")


SAYS: Final = """
import resource
from tailrace.cli.output import progress_console, say

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

say("before")
console = progress_console()
limit(7)
say("lost")
console.print("lost, too")
limit(1_000)
say("after")
console.print("drawn")
"""


def test_what_comes_after_what_nobody_took_is_told(tmp_path: Path) -> None:
    """A disk that was full under a log file may have space again."""
    log = tmp_path / "log"
    with log.open("w") as stderr:
        subprocess.run([sys.executable, "-c", SAYS], stderr=stderr, check=True, cwd=ROOT)
    assert log.read_text() == "before\nafter\ndrawn\n"


def test_what_commands_tell_on_stderr_ends_none_of_them() -> None:
    """It goes through `say`: `click.echo` raises where nobody takes it."""
    modules = {path.name: path.read_text() for path in (ROOT / "tailrace" / "cli").glob("*.py")}
    assert [name for name, text in modules.items() if re.search(r"\b(err|stderr)=True", text)] == [
        "output.py"
    ]


def test_the_limit_of_files_is_named() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    text = os_error_text(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert text == f"too many open files: no more than {limit} at a time (ulimit -n)"


def test_a_broken_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "--help"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_shells_get_their_completion() -> None:
    words = {"_TAILRACE_COMPLETE": "bash_complete", "COMP_WORDS": "tailrace top", "COMP_CWORD": "1"}
    done = subprocess.run(COMMAND, env=os.environ | words, capture_output=True, text=True, check=True)
    assert done.stdout == "plain,topic\n"


def imported(statement: str, args: list[str]) -> set[str]:
    """The modules that a fresh interpreter has after a command."""
    program = f"import sys\nsys.argv[1:] = {args!r}\n{statement}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


HEAVY: Any = {"zmq", "lmdb", "msgspec", "yaml", "rich", "cramjam", "numpy", "pyarrow", "asyncio", "logging"}


def test_help_imports_nothing_heavy() -> None:
    modules = imported("from tailrace.cli.main import run\nrun(sys.argv[1:])", ["--help"])
    assert not modules & HEAVY
    ours = {name for name in modules if name.startswith("tailrace.cli.")}
    assert ours == {"tailrace.cli.main", "tailrace.cli.exit_codes", "tailrace.cli.output"}


def test_the_supervisor_imports_neither_sockets_nor_storage() -> None:
    assert not imported("import tailrace.cli.up", []) & (HEAVY - {"msgspec", "yaml"})
