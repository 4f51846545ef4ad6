"""``vouch``: somebody says of a node by name that it is dead, or that no agent can run there.

The word is recorded on the Node object, with its owner, its reason and its end. It stands in for silence only: it is
refused where the node's agent answers or its kubelet lives, and a node that is heard again is judged by what it says.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from tidegate import vtime
from tidegate.drain.excuse import DEAD, NO_AGENT, SETTLE_SECONDS
from tidegate.engine import act
from tidegate.kube.api import NODES, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model import node as nodes
from tidegate.model.decode import Malformed
from tidegate.model.names import VOUCHED, VouchRecord, decode_vouch, encode_vouch
from tidegate.model.node import Node
from tidegate.observers.proxied import ProxiedAgents
from tidegate.observers.witness import Question

ASK_SECONDS = 5.0
TRIES = 20


@dataclass(frozen=True, slots=True)
class Vouching:
    """What is to be said: ``dead``, ``no-agent``, or ``withdraw`` what was. ``ttl_seconds`` None: as long as the Node
    object lives."""

    says: Literal["dead", "no-agent", "withdraw"]
    by: str
    reason: str = ""
    ttl_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class VouchPlan:
    """What would be written on the node, None to take it away; ``consequences`` and refusals in sentences."""

    node: Node
    before: VouchRecord | None
    after: VouchRecord | None
    consequences: tuple[str, ...]
    refused: tuple[str, ...]


async def plan_vouch(client: KubeClient, name: str, options: Vouching) -> VouchPlan:
    """Look at the node and ask its agent; changes nothing. Raises ``KubeError`` (404 for an unknown node)."""
    node = nodes.decode(await client.get(NODES, name))
    try:
        before = decode_vouch(node.annotations)
    except Malformed:
        before = None
    if options.says == "withdraw":
        back = f"drains wait for {name} again, as for every node"
        return VouchPlan(node, before, None, (back,) if VOUCHED in node.annotations else (), ())
    now = vtime.now()
    until = "" if options.ttl_seconds is None else act.instant(now + timedelta(seconds=options.ttl_seconds))
    after = VouchRecord(options.says, options.reason, options.by, act.instant(now), until)
    refused = await _refused(client, node, options)
    return VouchPlan(node, before, after, _consequences(name, options.says), refused)


async def _refused(client: KubeClient, node: Node, options: Vouching) -> tuple[str, ...]:
    found = []
    if not options.reason:
        found.append("a word without a reason: say --reason WHY, it stands in every result that rests on it")
    if options.says == DEAD and node.is_ready:
        found.append(f"{node.name} is Ready: its kubelet lives, and its kernel forwards what its proxy told it last")
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await ProxiedAgents(client).ask(node.name, Question(()))
        found.append(f"the agent of {node.name} answers: what it says counts, whatever is said of it")
    except (KubeError, TimeoutError):
        pass
    return tuple(found)


def _consequences(name: str, says: str) -> tuple[str, ...]:
    while_silent = f"while the agent of {name} is silent drains"
    if says == NO_AGENT:
        settle = f"{SETTLE_SECONDS:g} s of settle time"
        return (f"{while_silent} wait {settle} for it and end assumed, not verified",)
    return (
        f"{while_silent} go on without it and end verified-except, naming it and you",
        f"if {name} forwards after all, what enters the cluster there reaches pods that have ended",
    )


async def carry_out_vouch(client: KubeClient, plan: VouchPlan) -> bool:
    """Write it; False where there was nothing to take away. Of two who write at once neither overwrites the other
    unseen: the node is looked at again. Raises ``KubeError``."""
    name = plan.node.name
    for _ in range(TRIES):
        obj = await client.get(NODES, name)
        if obj["metadata"].get("uid", "") != plan.node.uid:
            raise KubeError(f"node/{name} is another one since it was looked at: look again")
        if plan.after is None and VOUCHED not in (obj["metadata"].get("annotations") or {}):
            return False
        annotations = {VOUCHED: None} if plan.after is None else encode_vouch(plan.after)
        version = obj["metadata"]["resourceVersion"]
        try:
            await client.patch(
                NODES, name, Patch({"metadata": {"resourceVersion": version, "annotations": annotations}})
            )
            return True
        except ApiError as error:
            if not error.is_conflict:
                raise
    raise KubeError(f"node/{name} changes too often to be written to: try again")
