"""How pods ended that nobody saw end: those that the engine before wrote down, and that are gone by now.

Asked in this order: what this process has written itself, the ledger of the pod's node (its agent writes each
retirement down before the gate opens), the ``Drain`` objects of an operator. What nobody has is ``unknown``, which is
not verified. A node that does not answer is asked again for a while: it may be starting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from tidegate.client.release.book import Entry
from tidegate.client.release.endings import UNGATED, Endings
from tidegate.client.release.ground import Ground
from tidegate.client.release.look import Sight
from tidegate.drain.ledger import Entry as Kept
from tidegate.drain.ledger import merged
from tidegate.engine.chronicle import FAILED, INTERRUPTED
from tidegate.kube.api import DRAINS, PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request
from tidegate.observers import ledger
from tidegate.observers.proxied import ProxiedAgents
from tidegate.release.record import Leaver

POD_UID = "tidegate.dev/pod-uid"
"""On a ``Drain`` object."""
ROUND_SECONDS = 6.0
"""For one round of questions, well within an engine's lease."""
PATIENCE_SECONDS = 20.0
AGENTS_AT_ONCE = 16
ENDING = ("gate", "drain")
"""Verbs whose pods end: a cut is taken back, as a rule."""
_LABELS_AT_ONCE = 20


class Unseen:
    """``pending`` asks; ``since`` has what was answered."""

    def __init__(self, ground: Ground, endings: Endings) -> None:
        self._ground, self._endings = ground, endings
        self._told: dict[str, tuple[float, str]] = {}
        """Pod -> when its release began, and how it ended."""
        self._settled: set[str] = set()
        self._asked_at: dict[str, float] = {}

    def since(self, began: float) -> Mapping[str, str]:
        """Pod -> how it ended, of the release that began then."""
        return {name: how for name, (at, how) in self._told.items() if at == began}

    async def pending(self, entry: Entry, sight: Sight) -> tuple[str, ...]:
        """Pods whose end is not known yet because a node has not answered: ask again. Raises ``KubeError``."""
        alive = {obj["metadata"]["uid"] for obj in sight.pods.values()}
        gone = {
            name: one
            for name, one in sorted(entry.status.leaving.items())
            if one.uid not in alive and one.uid not in self._settled and not self._endings.has_seen(one.uid)
        }
        if not gone:
            return ()
        now = asyncio.get_running_loop().time()
        known = _by_uid(self._ground.ledger.read().entries) if self._ground.ledger is not None else {}
        asked = {name: one for name, one in gone.items() if one.uid not in known}
        found, silent = await self._of_nodes(entry.namespace, asked)
        known |= found
        lacking = [one.uid for one in gone.values() if one.uid not in known]
        known |= await _objects_of(self._ground.client, entry.namespace, lacking) if lacking else {}
        waiting = []
        for name, one in gone.items():
            why = silent.get(one.node, "")
            if one.uid in known:
                self._settle(entry, name, one, known[one.uid])
            elif await _is_there(self._ground.client, entry.namespace, name, one.uid):
                self._settled.add(one.uid)  # not ours to end any more: somebody took it out of its owner's hands
            elif why and now - self._asked_at.setdefault(one.uid, now) < PATIENCE_SECONDS:
                waiting.append(name)
            else:
                self._settle(entry, name, one, UNGATED if one.is_bare else _unknown(entry, why))
        return tuple(waiting)

    def _settle(self, entry: Entry, name: str, one: Leaver, how: str) -> None:
        self._settled.add(one.uid)
        self._told[name] = (entry.status.began, how)

    async def _of_nodes(self, namespace: str, gone: Mapping[str, Leaver]) -> tuple[dict[str, str], dict[str, str]]:
        """uid -> how, by their nodes' agents; node -> why it did not answer."""
        agents, room = ProxiedAgents(self._ground.client), asyncio.Semaphore(AGENTS_AT_ONCE)
        nodes = list(dict.fromkeys(one.node for one in gone.values() if one.node))
        found: dict[str, str] = {}
        silent = dict.fromkeys(nodes, "no answer")

        async def told(node: str, pod: str = "") -> int:
            query = (("namespace", namespace), *((("pod", pod),) if pod else ()))
            said = ledger.decode(await agents.call(node, Request("GET", ledger.LEDGER_PATH, query)), node)
            found.update(_by_uid(said.entries))
            return said.left_off

        async def ask(node: str) -> None:
            try:
                async with room:
                    if await told(node):  # more than one answer holds: by name, what is not among the newest
                        for name, one in gone.items():
                            if one.node == node and one.uid not in found:
                                await told(node, name)
                silent.pop(node)
            except (KubeError, ValueError) as error:
                silent[node] = str(error)

        tasks = [asyncio.get_running_loop().create_task(ask(node)) for node in nodes]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=ROUND_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return found, silent


def _unknown(entry: Entry, why: str) -> str:
    told = f", and its node's ledger cannot be asked ({why})" if why else ", and no ledger has it"
    return f"unknown: no engine looked on{told}; `tidegate release resume deploy/{entry.spec.workload}` goes on"


def _by_uid(entries: Iterable[Kept]) -> dict[str, str]:
    """The last word on each pod. A run that broke off was not its end."""
    ends = [one for one in merged(entries) if one.uid and one.verb in ENDING]
    return {one.uid: _how(one.result, one.reason) for one in ends if one.result not in ("", FAILED, INTERRUPTED)}


def _how(result: str, reason: str) -> str:
    return f"{result}: {reason}" if reason else result


async def _objects_of(client: KubeClient, namespace: str, uids: list[str]) -> dict[str, str]:
    """uid -> how, by an operator's ``Drain`` objects; where there are none, or they may not be read, nothing."""
    labels = f"{POD_UID} in ({','.join(uids)})" if len(uids) <= _LABELS_AT_ONCE else ""
    try:
        items = (await client.list(DRAINS, Selection(namespace, labels))).items
    except ApiError as error:
        if not (error.is_not_found or error.code == 403):
            raise
        return {}
    found = {_uid_of(one): one.get("status") or {} for one in items}
    return {
        uid: _how(str(one.get("result")), str(one.get("reason") or "")) for uid, one in found.items() if uid in uids
    }


def _uid_of(obj: JsonObject) -> str:
    return str((obj.get("spec") or {}).get("uid") or "")


async def _is_there(client: KubeClient, namespace: str, name: str, uid: str) -> bool:
    try:
        return bool((await client.get(PODS, name, namespace))["metadata"]["uid"] == uid)
    except ApiError as error:
        if not error.is_not_found:
            raise
        return False
