"""The ledger: what this machine's command line has done to pods, and what every node's agent has.

``entries_of(client, namespace, pod)`` is the whole story of one pod, wherever it was written.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from tidegate.drain.ledger import Entry, Subject, merged
from tidegate.engine.chronicle import Chronicle
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import PODS, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request
from tidegate.model.names import ACTIVITY, SYSTEM_NAMESPACE
from tidegate.observers import ledger
from tidegate.observers.proxied import AGENT_LABELS, ProxiedAgents

if TYPE_CHECKING:
    from tidegate.client.options import VerbOptions
    from tidegate.client.plan import PodPlan

AGENT_SECONDS = 5.0
AGENTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which retirements. ``since``: RFC 3339, empty for all; ``namespace`` and ``pod`` empty for every one."""

    namespace: str = ""
    pod: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """``entries`` each once, oldest first; ``notes`` say who could not be asked and what could not be read."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()


def chronicle_of(client: KubeClient, plan: PodPlan, options: VerbOptions, token: str) -> Chronicle:
    """Who hears ``plan`` out as it is carried out. It writes where ``options.ledger`` says, if anywhere."""
    pod = plan.pod
    subject = Subject(
        verb=plan.verb,
        mode="label",
        token=token,
        by=options.identity.by,
        why=options.reason,
        cluster=client.server,
        uid=pod.uid,
        namespace=pod.namespace,
        pod=pod.name,
        node=pod.node,
        services=tuple(sorted(str(one) for one in plan.services)),
        deadline=f"{options.timeout_seconds:g}s",
        on_deadline=options.on_deadline if plan.verb == "drain" else "",
        probe=options.activity or pod.annotations.get(ACTIVITY, ""),
    )
    return Chronicle(subject, options.ledger or Ledger())


async def entries_of(client: KubeClient | None, namespace: str, pod: str, local: Ledger) -> tuple[Entry, ...]:
    """Every retirement of the pods of that name, oldest first. Never raises: who is silent tells nothing."""
    return (await find(client, local, Wanted(namespace, pod))).entries


async def find(client: KubeClient | None, local: Ledger, wanted: Wanted) -> Found:
    """What ``local`` has and, with ``client``, what each node's agent has of its cluster. Never raises."""
    read = local.read()
    notes = [read.problem] if read.problem else []
    if read.unreadable:
        notes.append(f"{local.path}: lines passed over that are no entries: {read.unreadable}")
    kept = list(read.entries)
    if client is not None:
        others = {one.id for one in kept if one.cluster and one.cluster != client.server}
        kept = [one for one in kept if one.id not in others]
        if others:
            notes.append(f"left out, of other clusters: {len(others)}; --file {local.path} shows them")
        told, silent = await _of_agents(client, wanted)
        kept += told
        notes += silent
    return Found(tuple(one for one in merged(kept) if _is_wanted(one, wanted)), tuple(notes))


def _is_wanted(one: Entry, wanted: Wanted) -> bool:
    is_there = wanted.namespace in ("", one.namespace) and wanted.pod in ("", one.pod)
    return is_there and (not wanted.since or one.at >= wanted.since)


async def _of_agents(client: KubeClient, wanted: Wanted) -> tuple[list[Entry], list[str]]:
    try:
        found = (await client.list(PODS, Selection(SYSTEM_NAMESPACE, AGENT_LABELS))).items
    except KubeError as error:
        return [], [f"the agents cannot be asked: {error}"]
    nodes = sorted({str((one.get("spec") or {}).get("nodeName") or "") for one in found} - {""})
    agents, room = ProxiedAgents(client), asyncio.Semaphore(AGENTS_AT_ONCE)

    async def ask(node: str) -> tuple[list[Entry], str]:
        query = (("since", wanted.since), ("namespace", wanted.namespace), ("pod", wanted.pod))
        request = Request("GET", ledger.LEDGER_PATH, tuple((key, value) for key, value in query if value))
        try:
            async with room, asyncio.timeout(AGENT_SECONDS):
                told = ledger.decode(await agents.call(node, request), node)
        except TimeoutError:
            return [], f"node {node}: no answer within {AGENT_SECONDS:g} s"
        except ApiError as error:
            return [], f"node {node}: its agent keeps no ledger" if error.is_not_found else f"node {node}: {error}"
        except (KubeError, ValueError) as error:
            return [], f"node {node}: {error}"
        # The agent does not know how its cluster is called from here.
        entries = [msgspec.structs.replace(one, cluster=client.server) for one in told.entries]
        return entries, f"node {node}: {told.left_off} older entries are left off" if told.left_off else ""

    answers = await asyncio.gather(*(ask(node) for node in nodes))
    return [one for entries, _ in answers for one in entries], [note for _, note in answers if note]
