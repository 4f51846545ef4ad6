"""``tidegate isolate pod/NAME``: out of its owner's hands, which makes another, with or without its traffic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import click

from tidegate.cli import mutate
from tidegate.cli.target import Duration, Reference

if TYPE_CHECKING:
    from tidegate.client import PodPlan, VerbOptions
    from tidegate.client.isolate import IsolationPlan
    from tidegate.client.targets import Targets
    from tidegate.drain.progress import Drain
    from tidegate.kube.client import KubeClient
    from tidegate.model.names import DrainResult


@click.command(short_help="Let a pod's owner replace it; the pod goes on serving, or is cut.")
@click.argument("pods", type=Reference("pod"), nargs=-1)
@click.option("--keep-traffic", is_flag=True, help="It goes on serving beside its replacement.")
@click.option("--cut-traffic", is_flag=True, help="It is taken out of its Services in the same write.")
@mutate.verb_options
@click.option("--timeout", default="60s", type=Duration(), help="How long to wait for it.  [default: 60s]")
@click.option("--ttl", default="24h", type=Duration(), help="Until `status --orphans` calls it one.  [default: 24h]")
def isolate(pods: tuple[tuple[str, str], ...], keep_traffic: bool, cut_traffic: bool, **given: Any) -> None:
    """Take a pod out of its owner's hands, which makes another, and keep it running.

    With --keep-traffic one label is changed that only its owner looks at; of a Deployment's pod that is
    pod-template-hash. `tidegate cut` then takes its traffic off, `tidegate restore` gives it back, `tidegate drain`
    retires it.

    \b
    tidegate isolate pod/web-7d9c5-x2x8k --keep-traffic
    tidegate isolate pod/web-7d9c5-x2x8k --cut-traffic

    \b
    Exit codes: 0 verified          3 refused, nothing was changed
                1 failed            4 not verified: what is missing is named
    """
    if keep_traffic is cut_traffic:
        raise click.UsageError("choose one of --keep-traffic and --cut-traffic")
    options = mutate.chosen(given, timeout_seconds=given["timeout"], ttl_seconds=given["ttl"])
    mutate.run("isolate", pods, options, given, keeping(options) if keep_traffic else cutting(options))


def keeping(options: VerbOptions) -> Callable[[Targets], mutate.Deed]:
    """An isolation that keeps the traffic."""
    from tidegate.client.isolate import carry_out_isolation, plan_isolation

    def made(about: Targets) -> mutate.Deed:
        def plan(client: KubeClient, name: str, is_witnessed: bool) -> Awaitable[PodPlan]:
            return plan_isolation(client, (about.namespace, name), options)

        def act(client: KubeClient, planned: PodPlan, told: Callable[[Drain], None]) -> Awaitable[DrainResult]:
            return carry_out_isolation(client, cast("IsolationPlan", planned), options)

        return mutate.Deed("isolate", about, options, plan, act)

    return made


def cutting(options: VerbOptions) -> Callable[[Targets], mutate.Deed]:
    """An isolation that takes the traffic off."""
    from tidegate.client import carry_out
    from tidegate.client.isolate import plan_severance

    def made(about: Targets) -> mutate.Deed:
        def plan(client: KubeClient, name: str, is_witnessed: bool) -> Awaitable[PodPlan]:
            return plan_severance(client, (about.namespace, name), options, is_witnessed)

        def act(client: KubeClient, planned: PodPlan, told: Callable[[Drain], None]) -> Awaitable[DrainResult]:
            return carry_out(client, planned, options, told)

        return mutate.Deed("isolate", about, options, plan, act)

    return made
