"""`orchestrate`: the group of all commands, and the output of errors."""

import os
import sys
from importlib import import_module
from typing import Any

import click

from orchestrator.cli.output import json_alone
from orchestrator.errors import OrchestratorError
from orchestrator.values.distribution import DISTRIBUTION

COMMANDS = {
    "build": "Rebuild one candidate from its recipe.toml.",
    "check": "Test whether a model has regressed against another one: a gate for CI.",
    "completion": "Print the script that completes `orchestrate` in a SHELL.",
    "compare": "Test whether B is faster than A on this target.",
    "compare-runs": "Compare two runs.",
    "dashboard": "Open a run's study in optuna-dashboard.",
    "measure": "Time one exported MODEL on a target.",
    "estimate": "Compute a MODEL's latency on a target that is not here.",
    "doctor": "Check what works on this machine, and what to install for the rest.",
    "devices": "List, check, set up and remove the devices that candidates are timed on.",
    "plugins": "List, check and create plugins.",
    "profiles": "List, show, check and characterize hardware profiles.",
    "report": "Write a run's report in another format.",
    "resume": "Continue a run that was stopped.",
    "worker": "Serve a shared search from another machine.",
    "search": "Find the Pareto-optimal models for a target.",
}

COMPLETION = "_ORCHESTRATE_COMPLETE"
"""Environment variable by which a shell requests completions; click derives it from the program's name."""


class LazyGroup(click.Group):
    """A group that imports a command's module when it is used, so that `--help` is fast.

    Commands of plugins are looked up only for names that are not built in, because discovery imports all plugins.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the built-in commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or look for it among the plugins' commands."""
        if cmd_name in COMMANDS:
            command: click.Command = import_module(f"orchestrator.cli.{cmd_name.replace('-', '_')}").command
            if COMPLETION in os.environ:  # the shell asks, not a person
                from orchestrator.cli.completion_values import prepare

                prepare(command)
            return command
        if cmd_name not in self.commands:
            from orchestrator.plugin.registry import Registry

            Registry.discover().commands(self)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command, with a suggestion for a misspelt name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from orchestrator.errors import unknown

            ctx.fail(unknown("command", args[0], COMMANDS))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name=DISTRIBUTION, prog_name="orchestrate")
@click.pass_context
def program(context: click.Context, debug: bool) -> None:
    """Find the best version of a trained network for a device: pruned, quantized, distilled, reshaped, and measured."""
    context.obj = {"debug": debug}


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit with 0, 1, 2, 3, 4 or 130; see docs/concepts.md."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        with json_alone(given):
            sys.exit(program.main(args=arguments, prog_name="orchestrate", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        sys.exit(2)
    except click.UsageError as error:
        _fail(f"{error.format_message()} ({_help(error)})", 2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)
    except OrchestratorError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except OSError as error:
        if debug:
            raise
        _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 4)
    except Exception as error:
        if debug:
            raise
        _fail(f"an error in the orchestrator itself: {type(error).__name__}: {error} (see it with orchestrate --debug)", 4)


def _help(error: click.UsageError) -> str:
    return f"see {error.ctx.command_path} --help" if error.ctx else "see orchestrate --help"


def _fail(message: str, code: int) -> None:
    """Print the message as one line and exit."""
    click.echo(f"orchestrate: {' '.join(message.split())}", err=True)
    sys.exit(code)
