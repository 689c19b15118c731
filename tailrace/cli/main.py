"""The `tailrace` command: finds the subcommand, and turns errors into one line and an exit code.

A subcommand's module is imported only when it is used, so that `--help` and completion are fast.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn

import click

from tailrace import __version__
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.similar import did_you_mean

from . import exit_codes
from .output import discard_stdout, open_standard_streams, os_error_text, say, saying

COMMANDS: Final = {
    "up": ("tailrace.cli.up:up", "Run a whole cluster from a YAML file."),
    "apply": ("tailrace.cli.apply:apply", "Let a running cluster take in its changed YAML file."),
    "coordinator": ("tailrace.cli.roles:coordinator", "Run the coordinator of a cluster."),
    "node": ("tailrace.cli.roles:node", "Run one node of a cluster."),
    "cluster": ("tailrace.cli.cluster:cluster", "Look at the cluster, move partitions, take nodes out."),
    "topic": ("tailrace.cli.topic:topic", "Create, list, describe, alter and delete topics."),
    "group": ("tailrace.cli.group:group", "Look at consumer groups, reset their offsets, delete them."),
    "produce": ("tailrace.cli.produce:produce", "Write lines to a topic."),
    "consume": ("tailrace.cli.consume:consume", "Read records of topics."),
    "run": ("tailrace.cli.run:run", "Call a function for every record, in several processes."),
    "bench": ("tailrace.cli.bench:bench", "Load tests: produce, consume, e2e, latency."),
    "torture": ("tailrace.cli.torture:torture", "Break a cluster on purpose, and check what it promised."),
    "verify": ("tailrace.cli.verify:verify", "Check the data folders of nodes that are not running."),
    "completion": ("tailrace.cli.completion:completion", "Print the completion script of a shell."),
}
COMPLETION: Final = "_TAILRACE_COMPLETE"
"""Set by the completion scripts of shells: `_TAILRACE_COMPLETE=bash_source tailrace` prints one."""


class LazyGroup(click.Group):
    """Knows its commands' names and short help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with a near miss for an unknown name."""
        if args[0] not in COMMANDS and (hint := did_you_mean(args[0], COMMANDS)):
            ctx.fail(f"No such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tailrace %(version)s")
def cli() -> None:
    """Tailrace: a durable, partitioned log, as a pip install."""


def main() -> NoReturn:
    """The entry point: run the command of `sys.argv` and exit."""
    open_standard_streams()
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command; its exit code."""
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
        return exit_codes.BROKEN_PIPE
    except OSError as error:  # such as a full disk under stdout
        discard_stdout()
        say(f"Error: {os_error_text(error)}")
        return exit_codes.ERROR
    return code


def _run(args: Sequence[str]) -> int:
    if COMPLETION in os.environ:
        cli.main(prog_name="tailrace")
    try:
        # Not `cli.main`, which would turn a broken pipe into exit code 1.
        with cli.make_context("tailrace", list(args)) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        with saying():
            error.show()
        return error.exit_code
    except TailraceError as error:
        say(f"Error: {error}")
        return exit_codes.ERROR
    except (KeyboardInterrupt, click.Abort):
        return exit_codes.INTERRUPTED
    return code if isinstance(code, int) else exit_codes.OK
