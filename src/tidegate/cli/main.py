"""``tidegate``: one group, its commands loaded when they are asked for.

Also ``kubectl tidegate`` (the plugin is the same program under another name).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from tidegate import __version__

_COMMANDS = {
    "demo": "tidegate.cli.demo:demo",
    "sim": "tidegate.cli.sim:sim",
    "lab": "tidegate.cli.lab:lab",
    "status": "tidegate.cli.status:status",
    "drain": "tidegate.cli.drain:drain",
    "agent": "tidegate.cli.agent:agent",
    "completion": "tidegate.cli.completion:completion",
}
"""Command -> where it is. Help texts are read from there too, so a new command is one file and one line here."""

DONE, FAILED, USAGE, REFUSED, UNVERIFIED = 0, 1, 2, 3, 4
"""Exit codes: done; failed; usage; refused, nothing changed; something is not verified."""


class LazyGroup(click.Group):
    """Imports a command when it runs or shows its help: `tidegate --version` must not import a lab."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tidegate")
@click.option("--debug", is_flag=True, envvar="TIDEGATE_DEBUG", help="Show a traceback when something fails.")
def tidegate(debug: bool) -> None:
    """Zero-error releases and pod-level traffic control for Kubernetes.

    A pod is told to stop only after every observer of its endpoints has been seen to let go.
    """
    if debug:
        os.environ["TIDEGATE_DEBUG"] = "1"


def fail(message: str, code: int = FAILED) -> NoReturn:
    """One clear line on stderr, and out."""
    click.echo(f"error: {message}", err=True)
    raise SystemExit(code)


def _expected_errors() -> tuple[type[BaseException], ...]:
    """Errors a user can act on: shown as one line. Imported late, only when something failed."""
    from tidegate.kube.errors import KubeError
    from tidegate.lab.folder import LabError

    return (KubeError, LabError, OSError)


def main() -> None:
    """Run the command line. Expected errors are one line; a bug is one line too, unless --debug."""
    try:
        code = tidegate(standalone_mode=False)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.Abort:
        click.echo("aborted", err=True)
        sys.exit(130)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("TIDEGATE_DEBUG"):
            raise
        expected = isinstance(error, _expected_errors())
        text = str(error).strip() or type(error).__name__
        fail(text if expected else f"{type(error).__name__}: {text} (a bug: run again with --debug and report it)")
    sys.exit(code if isinstance(code, int) else DONE)
