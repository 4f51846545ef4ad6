"""``tidegate agent``: the processes Tidegate runs in a cluster, each configured by its environment."""

from __future__ import annotations

import asyncio
import os
import sys

import click

_ROLES = {
    "node": "tidegate.agent.process:main",
    "holder": "tidegate.agent.holder:main",
    "coordinator": "tidegate.agent.coordinator:main",
    "prober": "tidegate.agent.prober:main",
}


@click.command()
@click.argument("role", type=click.Choice(sorted(_ROLES)), default="node", metavar="[ROLE]")
@click.option(
    "--observers", type=click.Path(dir_okay=False), metavar="FILE",
    help="The coordinator's file of observers that are no nodes (or TIDEGATE_OBSERVERS). See docs/observers.md.",
)  # fmt: skip
def agent(role: str, observers: str | None) -> None:
    """Run a part of Tidegate in a cluster. ROLE is node (the node agent, the default), holder, coordinator or prober.

    Configured by TIDEGATE_* variables, as the pods of a lab show them:

    \b
    kubectl -n tidegate-system get pods -o yaml
    """
    from tidegate.cli.main import FAILED, USAGE, fail
    from tidegate.vtime import Program, entrypoint

    if observers and role != "coordinator":
        raise click.UsageError("--observers is for the coordinator: it is the one that asks them")
    env = {**os.environ, **({"TIDEGATE_OBSERVERS": observers} if observers else {})}

    async def run() -> int:
        return await entrypoint(_ROLES[role])(Program(env=env, log=lambda line: click.echo(line, err=True)))

    try:
        code = asyncio.run(run())
    except KeyError as missing:
        fail(f"{missing.args[0]} is not set: this process is configured by its environment", USAGE)
    except OSError as error:
        fail(str(error), FAILED)
    sys.exit(code)
