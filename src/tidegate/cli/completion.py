"""``tidegate completion SHELL``: what to source."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
def completion(shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish.

    \b
    bash:  source <(tidegate completion bash)
    zsh:   source <(tidegate completion zsh)
    fish:  tidegate completion fish | source
    """
    from tidegate.cli.main import tidegate

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(tidegate, {}, "tidegate", "_TIDEGATE_COMPLETE").source())
