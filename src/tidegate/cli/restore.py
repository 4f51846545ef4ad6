"""``tidegate restore pod/NAME``: its labels back; the pod that stood in for it is drained."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import click

from tidegate.cli import mutate
from tidegate.cli.target import Duration, Reference

if TYPE_CHECKING:
    from tidegate.client import PodPlan, VerbOptions
    from tidegate.client.returning import RestorePlan
    from tidegate.client.targets import Targets
    from tidegate.drain.progress import Drain
    from tidegate.kube.client import KubeClient
    from tidegate.model.names import DrainResult


@click.command(short_help="Give a held pod back; its replacement is drained.")
@click.argument("pods", type=Reference("pod"), nargs=-1)
@mutate.verb_options
@click.option("--drain", "victim", default="", metavar="POD", help="Who goes in its place.  [default: the newest]")
@click.option("--timeout", default="5m", type=Duration(), help="How long it may take.  [default: 5m]")
def restore(pods: tuple[tuple[str, str], ...], victim: str, **given: Any) -> None:
    """Give a pod that was cut or isolated its labels back, from any machine.

    Where its owner made another meanwhile, that one is drained, verified, once the pod serves again: its owner would
    delete one without asking. Labels that were changed by hand since are left as they are.

    \b
    tidegate restore pod/web-7d9c5-x2x8k

    \b
    Exit codes: 0 verified          3 refused, nothing was changed
                1 failed            4 not verified: what is missing is named
    """
    if victim and len(pods) != 1:
        raise click.UsageError("--drain is for one pod at a time")
    options = mutate.chosen(given, timeout_seconds=given["timeout"])
    mutate.run("restore", pods, options, given, giving_back(options, victim.removeprefix("pod/")))


def giving_back(options: VerbOptions, victim: str = "") -> Callable[[Targets], mutate.Deed]:
    """A restore, with the pod ``victim`` in its place, or the newest."""
    from tidegate.client.restore import carry_out_restore
    from tidegate.client.returning import plan_restore

    def made(about: Targets) -> mutate.Deed:
        def plan(client: KubeClient, name: str, is_witnessed: bool) -> Awaitable[PodPlan]:
            return plan_restore(client, (about.namespace, name), options, is_witnessed, victim)

        def act(client: KubeClient, planned: PodPlan, told: Callable[[Drain], None]) -> Awaitable[DrainResult]:
            return carry_out_restore(client, cast("RestorePlan", planned), options, told)

        return mutate.Deed("restore", about, options, plan, act)

    return made
