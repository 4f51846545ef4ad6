"""``examine``: is everything there that the verbs need, and is anything left over? Each finding with its next step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate import __version__, vtime
from tidegate.client import doctor_checks as checks
from tidegate.client.doctor_checks import Checked
from tidegate.client.permissions import VERBS, deeds_of, review
from tidegate.client.status_nodes import Asking
from tidegate.client.status_sources import Nouns, read
from tidegate.kube.api import ENDPOINTSLICES, LEASES, NODES, PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers import witness
from tidegate.observers.coordinator import LEASE_NAME
from tidegate.observers.proxied import AGENT_LABELS, ProxiedAgents
from tidegate.observers.witness import About

READING = ("status", "trace", "doctor", "verify")
"""The verbs that change nothing: without their permissions there is nothing to see."""
_NOBODY = Endpoint("192.0.2.1", 1)
"""Of TEST-NET-1 (RFC 5737): a question about it is answered by the fence alone."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found, in the order of the checks."""

    server: str
    namespace: str
    findings: tuple[Checked, ...]

    @property
    def level(self) -> str:
        """The worst of all."""
        return checks.worst(self.findings)

    @property
    def document(self) -> dict[str, Any]:
        """The JSON that ``-o json`` prints; docs/json.md names its keys."""
        findings = [
            {
                "check": one.check,
                "level": one.level,
                "subject": one.subject,
                "sentence": one.sentence,
                "next": one.next_step,
            }
            for one in self.findings
        ]
        return {"server": self.server, "namespace": self.namespace, "level": self.level, "findings": findings}


async def examine(client: KubeClient, namespace: str) -> Examination:
    """Look at everything, ``namespace`` "" being all of them. Never raises ``KubeError``: what cannot be read is a
    finding."""
    try:
        response = await client.request(Request("GET", "/version"))
        version = msgspec.json.decode(await response.read(), type=dict[str, Any])
    except (KubeError, msgspec.DecodeError) as error:
        step = "choose another with --context or --kubeconfig"
        return Examination(client.server, namespace, (Checked("server", "fail", str(error), step),))
    found = [checks.server(version)]
    parts = (_permissions(client, namespace), _observers(client), _objects(client, namespace))
    for part in await asyncio.gather(*parts):
        found += part
    return Examination(client.server, namespace, tuple(found))


async def _permissions(client: KubeClient, namespace: str) -> list[Checked]:
    """Each verb's deeds; what several verbs need is asked once."""
    needed = {verb: deeds_of(verb, namespace) for verb in VERBS}
    try:
        answers = await review(client, dict.fromkeys(deed for deeds in needed.values() for deed in deeds))
    except KubeError as error:
        return [Checked("permissions", "unknown", f"cannot be asked: {error}", "try again")]
    return [
        checks.permissions(verb, {deed: answers[deed] for deed in deeds}, verb in READING)
        for verb, deeds in needed.items()
    ]


async def _observers(client: KubeClient) -> list[Checked]:
    """Coordinator, agents, and what each node's tables show."""
    now = vtime.now()
    try:
        nodes = sorted(obj["metadata"]["name"] for obj in (await client.list(NODES)).items)
        listed = (await client.list(PODS, Selection(SYSTEM_NAMESPACE, AGENT_LABELS))).items
        slices = (await client.list(ENDPOINTSLICES, Selection(SYSTEM_NAMESPACE))).items
        held = await _lease(client)
    except KubeError as error:
        return [Checked("agents", "unknown", f"observers cannot be listed: {error}", "ask for the permission")]
    placed = sorted({str((obj.get("spec") or {}).get("nodeName") or "") for obj in listed})
    found = [checks.lease(held, now), *checks.agents(nodes, placed, held is not None), *checks.webhook(slices)]
    asked = [node for node in nodes if node in placed]
    if not asked:
        return found
    agents = ProxiedAgents(client)
    versions = await asyncio.gather(*(_version(agents, node) for node in asked))
    heard = await Asking(client).ask(asked, [_NOBODY], {})
    written = checks.written_epochs(slices, now)
    for checked, (_, facts) in zip(versions, sorted(heard.facts.items()), strict=True):
        found += [checked, checks.proxy(facts), *checks.fence(facts, written)]
    return found


async def _lease(client: KubeClient) -> JsonObject | None:
    try:
        return await client.get(LEASES, LEASE_NAME, SYSTEM_NAMESPACE)
    except ApiError as error:
        if error.is_not_found:
            return None
        raise


async def _version(agents: ProxiedAgents, node: str) -> Checked:
    try:
        body = await agents.call(node, Request("GET", witness.ABOUT_PATH))
        return checks.version(node, msgspec.json.decode(body, type=About).version, __version__)
    except ApiError as error:
        said = "" if error.code == 404 else None
        return checks.version(node, said, __version__, str(error))
    except (KubeError, msgspec.DecodeError) as error:
        return checks.version(node, None, __version__, str(error))


async def _objects(client: KubeClient, namespace: str) -> list[Checked]:
    """Pods without a gate, and records that are left over."""
    try:
        sources = await read(client, namespace)
    except KubeError as error:
        return [Checked("gate", "unknown", f"pods and Services cannot be read: {error}", "ask for the permission")]
    census, malformed = Nouns().census(sources)
    found = [Checked("objects", "unknown", one, "its object is not what its kind says") for one in malformed]
    found += [Checked("objects", "unknown", one, "ask for the permission") for one in sources.problems]
    return [*found, *checks.ungated(census), *checks.leftovers(census, vtime.now())]
