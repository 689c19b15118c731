"""`tailrace completion`: the script with which a shell completes commands, options and names of topics."""

import click
from click.shell_completion import get_completion_class

from .main import COMPLETION, cli


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script.

    bash: `eval "$(tailrace completion bash)"` in ~/.bashrc; zsh: the same with zsh in ~/.zshrc;
    fish: `tailrace completion fish > ~/.config/fish/completions/tailrace.fish`.
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "tailrace", COMPLETION).source())
