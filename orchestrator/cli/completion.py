"""`orchestrate completion`."""

import click
from click.shell_completion import get_completion_class

from orchestrator.cli.program import COMPLETION

SHELLS = ("bash", "zsh", "fish")
# Bash takes "qemu:cortex-a72" for several words otherwise, and completes only the last one.
BASH_WORDS = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:/}"


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that completes `orchestrate` in a SHELL.

    For this session, or in ~/.bashrc for all (zsh the same, in ~/.zshrc):

        source <(orchestrate completion bash)

    In fish, or in ~/.config/fish/config.fish:

        orchestrate completion fish | source
    """
    if shell == "bash":
        click.echo(BASH_WORDS)
    if kind := get_completion_class(shell):
        click.echo(kind(context.find_root().command, {}, "orchestrate", COMPLETION).source())
