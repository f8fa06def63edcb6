"""`orchestrate completion`."""

import click

from orchestrator.cli.completion_values import SHELLS, script


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that completes `orchestrate` in a SHELL.

    For this session, or in the shell's start-up file for all:

    \b
        source <(orchestrate completion bash)      # in ~/.bashrc; zsh the same, in ~/.zshrc
        orchestrate completion fish | source       # in ~/.config/fish/config.fish
    """
    click.echo(script(shell))
