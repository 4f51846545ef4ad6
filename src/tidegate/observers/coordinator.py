"""What the keeper of a drain asks the coordinator, and what it is told: source, epoch, every node's answer.

The keeper (the node agent in gate mode, the command line in label mode) runs the drain table; the coordinator is
the observer that lists EndpointSlices, writes the fence and asks the nodes, once for all drains in flight.
Instants in a ``View`` are the coordinator's monotonic seconds; ``now`` is its clock when it answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from tidegate.drain.acknowledgement import Acknowledgement, Evidence, Verdict
from tidegate.drain.state import Mode
from tidegate.kube.errors import KubeError
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.addition import Addition, Joining

PROTOCOL = 1
ACKNOWLEDGE_PATH = "/v1/acknowledge"
STATUS_PATH = "/v1/status"
SERVICES_MAX = 100
"""Services that one question about the status may name (``?service=namespace/name``): they stand in its URL."""
WAIT_SECONDS_MAX = 30.0
LEASE_NAME = "tidegate-coordinator"
ADDRESS_ANNOTATION = "tidegate.dev/address"
"""On the Lease: where its holder answers ("ip:port"). ``holderIdentity`` is the holder's pod."""


class JoiningFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``addition.Joining`` on the wire."""

    pod: str
    endpoints: tuple[str, ...]
    zone: str = ""


class AdditionFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``addition.Addition`` on the wire."""

    service: str
    pods: tuple[JoiningFields, ...]
    others: tuple[str, ...] = ()


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """POST /v1/acknowledge. Idempotent: asking registers the drain, silence for a minute forgets it.

    Another ``round`` starts source, fence and answers over (a new keeper, a tombstone). ``since`` is the ``version``
    last seen; the answer comes once there is another, or after ``wait_seconds``. ``fresh`` asks for a new quorum
    LIST and a new dump of every node, both begun after this call: the last look before something irreversible.
    ``seen``: Services in whose slices the keeper itself saw the pod before its cut. ``services`` (namespace/name)
    narrows source and answers to those; empty for every way to the pod. ``addition``: pods that everybody is to send to
    as well; observers that are no nodes are asked about those, in the place of ``endpoints``. ``done`` ends it.
    """

    uid: str
    namespace: str
    name: str
    endpoints: tuple[str, ...]
    mode: str
    round: str = ""
    since: str = ""
    wait_seconds: float = 0.0
    fresh: bool = False
    done: bool = False
    seen: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    addition: AdditionFields | None = None
    protocol: int = PROTOCOL


class NodeView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node's acknowledgement. ``evidence``: the dump, its instant (seconds since 1970)."""

    node: str
    verdict: str
    detail: str
    evidence: str = ""
    at: float = 0.0


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The answer. ``spell`` names one unbroken stretch of a clean source: another spell, another proof.

    ``clean_at`` and ``sent_at`` are None before the clean LIST and the fence write; ``observers`` is None before the
    nodes were listed. Every node's verdict is about ``epoch``. ``serving``: the pod's addresses in its slices;
    ``exception``: why a gate should be answered at once (drain.source.gate_exception).
    """

    instance: str
    now: float
    spell: str
    clean_at: float | None = None
    reasons: tuple[str, ...] = ()
    epoch: str = ""
    sent_at: float | None = None
    observers: tuple[str, ...] | None = None
    suspected: tuple[str, ...] = ()
    serving: tuple[str, ...] = ()
    exception: str = ""
    nodes: tuple[NodeView, ...] = ()
    version: str = ""
    is_fresh: bool = False
    protocol: int = PROTOCOL


class Coordinator(Protocol):
    """A way to the coordinator: straight (agents), or through the API server's pods/proxy (the command line)."""

    async def acknowledge(self, ask: Ask) -> View:
        """Raises ``CoordinatorUnreachable``."""
        ...


class CoordinatorUnreachable(KubeError):
    """No coordinator answered as one. Held gates keep holding."""


class QuestionRefused(CoordinatorUnreachable):
    """It answered that it does not know the question: it is of another version. Never a yes; asked again, it says the
    same."""


def ask_of(pod: tuple[str, str, str], endpoints: tuple[Endpoint, ...], mode: Mode) -> Ask:
    """A question about ``pod`` (uid, namespace, name)."""
    uid, namespace, name = pod
    return Ask(uid=uid, namespace=namespace, name=name, endpoints=spell(endpoints), mode=mode.value)


def spell(endpoints: tuple[Endpoint, ...]) -> tuple[str, ...]:
    """Endpoints as text that can be read back: ``str`` shows port 0 as a star."""
    return tuple(f"{_host(endpoint.address)}:{endpoint.port}/{endpoint.protocol}" for endpoint in endpoints)


def read(spelled: tuple[str, ...]) -> tuple[Endpoint, ...]:
    """Raises ``ValueError``."""
    found = []
    for text in spelled:
        address, _, protocol = text.partition("/")
        found.append(Endpoint.parse(address, protocol or "TCP"))
    return tuple(found)


def endpoints_of(ask: Ask) -> tuple[Endpoint, ...]:
    """The endpoints asked about. Raises ``ValueError``."""
    return read(ask.endpoints)


def addition_of(ask: Ask) -> Addition | None:
    """The pods that are to be sent to. Raises ``ValueError``."""
    found = ask.addition
    if found is None:
        return None
    pods = tuple(Joining(one.pod, read(one.endpoints), one.zone) for one in found.pods)
    return Addition(found.service, pods, read(found.others))


def fields_of(addition: Addition) -> AdditionFields:
    pods = tuple(JoiningFields(one.pod, spell(one.endpoints), one.zone) for one in addition.pods)
    return AdditionFields(addition.service, pods, spell(addition.others))


def decode_ask(body: bytes) -> Ask:
    """Raises ``ValueError`` for anything but a question of this protocol about at least one endpoint."""
    ask = msgspec.json.decode(body, type=Ask)
    if ask.protocol != PROTOCOL:
        raise ValueError(f"protocol {ask.protocol} is not spoken here, only {PROTOCOL}")
    if not ask.uid or not ask.endpoints:
        raise ValueError("a drain has a uid and at least one endpoint")
    Mode(ask.mode)
    endpoints_of(ask)
    addition_of(ask)
    return ask


def decode_view(status: int, body: bytes) -> View:
    """The coordinator's answer. Raises ``CoordinatorUnreachable`` for anything that is not one."""
    if status != 200:
        raise CoordinatorUnreachable(f"the coordinator answered {status}: {body[:120].decode(errors='replace')}")
    try:
        view = msgspec.json.decode(body, type=View)
        if view.protocol != PROTOCOL:
            raise ValueError(f"protocol {view.protocol}")
        acknowledgements(view)
        read(view.serving)
    except (msgspec.DecodeError, ValueError) as error:
        raise CoordinatorUnreachable(f"the coordinator's answer is not understood: {error}") from error
    return view


def epoch_of(view: View) -> Epoch | None:
    return Epoch.parse(view.epoch) if view.epoch else None


def acknowledgements(view: View) -> tuple[Acknowledgement, ...]:
    """The nodes' verdicts as the drain table takes them; none before there is an epoch. Raises ``ValueError``."""
    epoch = epoch_of(view)
    if epoch is None:
        return ()
    return tuple(
        Acknowledgement(one.node, Verdict(one.verdict), epoch, Evidence(one.evidence, one.at, one.detail))
        for one in view.nodes
    )


def lease_address(lease: Mapping[str, Any]) -> tuple[str, int]:
    """Where the Lease's holder answers. Raises ``CoordinatorUnreachable``."""
    text = ((lease.get("metadata") or {}).get("annotations") or {}).get(ADDRESS_ANNOTATION, "")
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise CoordinatorUnreachable("the coordinator's Lease does not say where it answers")
    return host, int(port)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
