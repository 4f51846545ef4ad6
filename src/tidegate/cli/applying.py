"""``tidegate install`` and its way back as they are carried out: the plan, the question, progress, what is left."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tidegate import __version__
from tidegate.cli import question
from tidegate.cli.main import DONE, FAILED, INTERRUPTED, REFUSED, fail
from tidegate.cli.target import patience
from tidegate.model.names import SYSTEM_NAMESPACE

if TYPE_CHECKING:
    from tidegate.agent.manifests import Installation
    from tidegate.client.install import InstallPlan
    from tidegate.client.uninstall import UninstallPlan
    from tidegate.kube.kubeconfig import Cluster

Told = tuple[dict[str, Any], int]
NOT_PULLED = "this is a lab, which pulls no image and has what it needs: run it again without --image"
NO_IMAGE = "--image is missing: no image is published, build one (docs/operating.md) and name it"


def install(of: Installation, parts: tuple[str, ...], given: dict[str, Any]) -> NoReturn:
    """Apply these parts and wait until they are ready."""
    from tidegate.kube.errors import KubeError
    from tidegate.kube.kubeconfig import load

    if not of.image:  # a lab has one of its own
        try:
            load(given["kubeconfig"], given["context"])
        except KubeError:
            raise click.UsageError(NO_IMAGE) from None
    again = "interrupted: what was applied stands; `tidegate install` with the same options goes on"
    _run(lambda cluster: installed(cluster, of, parts, given), given, again)


def uninstall(of: Installation, given: dict[str, Any]) -> NoReturn:
    """Take everything away and wait until it is gone."""
    again = "interrupted: what was deleted is gone; `tidegate uninstall` goes on"
    _run(lambda cluster: uninstalled(cluster, of, given), given, again)


def _run(made: Any, given: dict[str, Any], interrupted: str) -> NoReturn:
    from tidegate.kube.kubeconfig import load

    work: Coroutine[Any, Any, Told] = made(load(given["kubeconfig"], given["context"]))
    try:
        document, code = asyncio.run(work)
    except KeyboardInterrupt:
        click.echo(interrupted, err=True)
        sys.exit(INTERRUPTED)
    if given["output"] == "json":
        click.echo(json.dumps(document, indent=2))
    sys.exit(code)


async def installed(cluster: Cluster, of: Installation, parts: tuple[str, ...], given: dict[str, Any]) -> Told:
    """The document and the exit code."""
    from tidegate.cli.parts import objects_of
    from tidegate.client.install import carry_out_install, offered, plan_install, stamped, until_ready
    from tidegate.kube.connect import open_cluster

    is_forced = given["force_conflicts"]
    async with open_cluster(cluster, patience=patience()) as client:
        offer = await offered(client)
        if offer is None and not of.image:
            raise click.UsageError(NO_IMAGE)
        if offer is not None and (of.image or of.operator_image):
            fail(NOT_PULLED, REFUSED)
        wanted = stamped(objects_of(of, parts, offer), __version__, of.image)
        plan = await plan_install(client, wanted, __version__, is_forced)
        _head(cluster, f"install, {f'image {of.image}' if of.image else 'as the lab offers it'}")
        for line in install_lines(plan):
            click.echo(line, err=True)
        if plan.refused or given["dry_run"]:
            return install_document(plan, False, ()), REFUSED if plan.refused else DONE
        if plan.is_changing and not question.is_wanted(given["yes"]):
            fail("nothing was changed", FAILED)
        await carry_out_install(client, plan, is_forced, lambda one: _say(f"{one.name} {one.change}"))
        missing = await until_ready(client, wanted, given["timeout"], _progress)
    if missing:
        _say(f"applied, and not ready after {given['timeout']:g} s; `tidegate doctor` says more; run again to wait on")
    elif given["output"] == "text":
        click.echo(f"installed in namespace {SYSTEM_NAMESPACE}: everything is ready")
    return install_document(plan, True, missing), FAILED if missing else DONE


def _head(cluster: Cluster, what: str) -> None:
    click.echo(f"context {cluster.context or '-'}, server {cluster.server}, namespace {SYSTEM_NAMESPACE}", err=True)
    click.echo(f"{what}:", err=True)


def _say(line: str) -> None:
    click.echo(f"  {line}", err=True)


def _progress(missing: tuple[str, ...]) -> None:
    for line in missing or ("everything is ready",):
        _say(line)


def install_lines(plan: InstallPlan) -> list[str]:
    """The plan, for people."""
    lines = [f"  {one.change:<9} {one.name}" for one in plan.items]
    lines += [f"  note: {one}" for one in plan.notes]
    return lines + [f"  refused: {one}" for one in plan.refused]


def install_document(plan: InstallPlan, is_applied: bool, missing: tuple[str, ...]) -> dict[str, Any]:
    """What ``-o json`` prints (docs/json.md)."""
    return {
        "items": [{"object": one.name, "change": one.change} for one in plan.items],
        "applied": is_applied,
        "notes": list(plan.notes),
        "refused": list(plan.refused),
        "missing": list(missing),
    }


# --- the way back ---


async def uninstalled(cluster: Cluster, of: Installation, given: dict[str, Any]) -> Told:
    """The document and the exit code."""
    from dataclasses import replace

    from tidegate.agent.manifests import sweep
    from tidegate.cli.parts import objects_of
    from tidegate.client.install import offered
    from tidegate.client.uninstall import carry_out_uninstall, plan_uninstall
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=patience()) as client:
        offer = await offered(client)
        plan = await plan_uninstall(client, objects_of(of, offer=offer), given["force"])
        _head(cluster, "uninstall")
        for line in uninstall_lines(plan, is_lab=offer is not None):
            click.echo(line, err=True)
        if plan.refused or given["dry_run"] or not plan.there:
            return uninstall_document(plan, False, ()), REFUSED if plan.refused else DONE
        if not question.is_wanted(given["yes"]):
            fail("nothing was changed", FAILED)
        image = given["image"] or plan.image
        sweeper = sweep(replace(of, image=image)) if image else None
        left = await carry_out_uninstall(client, plan, sweeper, given["timeout"], _say)
    for line in left:
        _say(line)
    if not left and given["output"] == "text":
        click.echo("nothing of Tidegate is left in the cluster but what is listed above as staying")
    return uninstall_document(plan, True, left), FAILED if left else DONE


def uninstall_lines(plan: UninstallPlan, is_lab: bool = False) -> list[str]:
    """The plan, for people."""
    from tidegate.client.install import named

    lines = [f"  deleted   {named(one)}" for one in plan.there] or ["  nothing is installed"]
    if plan.there and is_lab:
        lines.append("  note: the gate's redirect stays with the lab's nodes, and ends with the lab")
    elif plan.there and not plan.image:
        lines.append("  note: no image is known to sweep nodes with: name it with --image, or the redirect stays")
    lines += [f"  note: the gate of pod/{one} is held: waited for" for one in plan.holding]
    lines += [f"  stays: {one}" for one in plan.staying]
    return lines + [f"  refused: {one}" for one in plan.refused]


def uninstall_document(plan: UninstallPlan, is_applied: bool, left: tuple[str, ...]) -> dict[str, Any]:
    """What ``-o json`` prints (docs/json.md)."""
    from tidegate.client.install import named

    return {
        "deleted": [named(one) for one in plan.there],
        "applied": is_applied,
        "holding": list(plan.holding),
        "staying": list(plan.staying),
        "refused": list(plan.refused),
        "left": list(left),
    }
