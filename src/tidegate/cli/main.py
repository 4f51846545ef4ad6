"""``tidegate``: one group, its commands loaded when they are asked for.

Also ``kubectl tidegate`` (the plugin is the same program under another name).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from tidegate import __version__

_COMMANDS = {
    "demo": "tidegate.cli.demo:demo",
    "sim": "tidegate.cli.sim:sim",
    "lab": "tidegate.cli.lab:lab",
    "status": "tidegate.cli.status:status",
    "ledger": "tidegate.cli.ledger:ledger",
    "observe": "tidegate.cli.observe:observe",
    "trace": "tidegate.cli.trace:trace",
    "doctor": "tidegate.cli.doctor:doctor",
    "cut": "tidegate.cli.cut:cut",
    "prepare": "tidegate.cli.prepare:prepare",
    "isolate": "tidegate.cli.isolate:isolate",
    "restore": "tidegate.cli.restore:restore",
    "drain": "tidegate.cli.drain:drain",
    "release": "tidegate.cli.release:release",
    "vouch": "tidegate.cli.vouch:vouch",
    "inspect": "tidegate.cli.inspect:inspect",
    "verify": "tidegate.cli.verify:verify",
    "install": "tidegate.cli.install:install",
    "uninstall": "tidegate.cli.uninstall:uninstall",
    "operator": "tidegate.cli.operator:operator",
    "agent": "tidegate.cli.agent:agent",
    "completion": "tidegate.cli.completion:completion",
}
"""Command -> where it is. Help texts are read from there too, so a new command is one file and one line here."""

DONE, FAILED, USAGE, REFUSED, UNVERIFIED = 0, 1, 2, 3, 4
"""Exit codes: done; failed; usage; refused, nothing changed; something is not verified."""

INTERRUPTED = 130
"""As shells report a Ctrl-C: 128 + SIGINT."""


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
    click.echo(f"error: {' '.join(message.split())}", err=True)
    raise SystemExit(code)


_EXTRAS = {"uvloop": "lab", "wsproto": "lab", "prometheus_client": "cluster", "cryptography": "cluster"}
"""Modules that an extra brings: whoever misses one is told which."""


def _explain(error: Exception) -> tuple[str, int]:
    """One line a user can act on, and the exit code. Imported late, only when something failed."""
    from tidegate.kube.errors import ApiError, KubeError, Unreachable
    from tidegate.lab.folder import LabError, LabNameError

    text = str(error).strip() or type(error).__name__
    match error:
        case Unreachable() if text.startswith(("http://127.", "https://127.")):
            return f"{text}; a lab's kubeconfig ends with its lab: `tidegate lab status --all` shows what is up", FAILED
        case LabNameError():
            return text, USAGE
        case ApiError() if error.is_trouble:
            way = "`kubectl get --raw '/readyz?verbose'` says how it is; the same command again goes on"
            said = text.partition(f"answered {error.code}: ")[2] or text
            return f"the API server answers {error.code}: {said}; {way}", FAILED
        case KubeError() | LabError():
            return text, FAILED
        case OSError() if error.strerror:
            return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, FAILED
        case OSError():
            return text, FAILED
        case ModuleNotFoundError() if error.name in _EXTRAS:
            extra = _EXTRAS[error.name]
            return f"this needs {error.name}, which is not installed: pip install 'tidegate[{extra}]'", FAILED
    return f"{type(error).__name__}: {text} (a bug: run again with --debug and report it)", FAILED


def _usage(error: click.UsageError) -> NoReturn:
    """What was wrong with the command line, and where to read what would be right."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        raise SystemExit(USAGE)
    text = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx else "tidegate"
    fail(f"{text[:1].lower()}{text[1:]}; see `{command} --help`", USAGE)


def _name() -> str | None:
    """How we were called: kubectl finds plugins by file name."""
    return "kubectl tidegate" if os.path.basename(sys.argv[0]) == "kubectl-tidegate" else None


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Expected errors are one line; a bug is one line too, unless --debug."""
    try:
        code = tidegate.main(arguments, prog_name=_name(), standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.UsageError as error:
        _usage(error)
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except Exception as error:
        if os.environ.get("TIDEGATE_DEBUG"):
            raise
        fail(*_explain(error))
    sys.exit(code if isinstance(code, int) else DONE)
