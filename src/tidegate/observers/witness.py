"""The question one coordinator asks each node agent for a whole batch of drains, and the answer to it.

Question: "which of these endpoints do you still route to, at which fence, with which connections being opened?"
The agent answers with ``Facts`` narrowed to the endpoints asked about; it judges nothing. Both sides decode
strictly: an answer with a field, version or node we do not expect reads as unreadable, never as clean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from tidegate.dataplane.facts import Facts, Route, Tracked, Unreadable
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

if TYPE_CHECKING:
    from tidegate.kube.wire import Peer

PROTOCOL = 1
QUESTION_PATH = "/v1/question"
ABOUT_PATH = "/v1/about"
ENDPOINTS_MAX = 10_000
WAIT_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Question:
    """``since`` is the digest of the last answer: the agent replies once its answer differs, or at the end of
    ``wait_seconds``."""

    endpoints: tuple[Endpoint, ...]
    since: str = ""
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent of ``node`` saw. ``digest`` names the content without its instant."""

    node: str
    facts: Facts
    digest: str


class About(msgspec.Struct, frozen=True):
    """GET /v1/about: which agent this is. Agents before 0.2 have no such path."""

    node: str
    version: str
    protocol: int


class _WireQuestion(msgspec.Struct, forbid_unknown_fields=True):
    protocol: int
    endpoints: list[str]
    since: str = ""
    wait_seconds: float = 0.0


class _WireRoute(msgspec.Struct, forbid_unknown_fields=True):
    via: str
    address: str
    port: int
    protocol: str
    endpoints: list[str]
    service: str


class _WireTracked(msgspec.Struct, forbid_unknown_fields=True):
    protocol: str
    state: str
    source: str
    destination: str
    endpoint: str


class _WireAnswer(msgspec.Struct, forbid_unknown_fields=True):
    protocol: int
    node: str
    dump: str
    at: float
    routes: list[_WireRoute]
    fence: list[str]
    tracked: list[_WireTracked]
    unreadable: list[tuple[str, str]]


def narrowed(facts: Facts, endpoints: Iterable[Endpoint]) -> Facts:
    """The facts that matter for ``endpoints``: routes and handshakes to them, the whole fence, all unreadable."""
    asked: dict[str, list[Endpoint]] = {}  # a status of a whole cluster asks about thousands
    for endpoint in endpoints:
        asked.setdefault(endpoint.address, []).append(endpoint)

    def is_asked(to: Endpoint) -> bool:
        return any(one.covers(to) for one in asked.get(to.address, ()))

    routes = tuple(
        replace(route, endpoints=found)
        for route in facts.routes
        if (found := tuple(to for to in route.endpoints if is_asked(to)))
    )
    tracked = tuple(entry for entry in facts.tracked if entry.is_opening and is_asked(entry.endpoint))
    return replace(facts, routes=routes, tracked=tracked)


def answer_of(node: str, facts: Facts) -> Answer:
    """``facts`` as the answer of ``node``, with its digest."""
    content = msgspec.structs.replace(_to_wire(node, facts), at=0.0, dump="")
    return Answer(node, facts, hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16])


def encode_question(question: Question) -> bytes:
    endpoints = [_spell(endpoint) for endpoint in question.endpoints]
    return msgspec.json.encode(_WireQuestion(PROTOCOL, endpoints, question.since, question.wait_seconds))


def decode_question(body: bytes) -> Question:
    """Raises ``ValueError`` for anything but a question of this protocol."""
    raw = msgspec.json.decode(body, type=_WireQuestion)
    if raw.protocol != PROTOCOL:
        raise ValueError(f"protocol {raw.protocol} is not spoken here, only {PROTOCOL}")
    if len(raw.endpoints) > ENDPOINTS_MAX:
        raise ValueError(f"{len(raw.endpoints)} endpoints, at most {ENDPOINTS_MAX} in one question")
    endpoints = tuple(_read(text) for text in raw.endpoints)
    return Question(endpoints, raw.since, min(max(0.0, raw.wait_seconds), WAIT_SECONDS_MAX))


def encode_answer(answer: Answer) -> bytes:
    return msgspec.json.encode(_to_wire(answer.node, answer.facts))


def decode_answer(body: bytes, node: str) -> Answer:
    """The answer of ``node``. Never raises: what is not understood is an answer with unreadable facts."""
    try:
        raw = msgspec.json.decode(body, type=_WireAnswer)
        if raw.protocol != PROTOCOL or raw.node != node:
            raise ValueError(f"this is protocol {raw.protocol} from {raw.node!r}, asked was {node!r}")
        return answer_of(node, _from_wire(raw))
    except (msgspec.DecodeError, ValueError) as error:
        why = Unreadable(str(error), f"answer of {node}")
        return answer_of(node, Facts(node, "answer", unreadable=(why,)))


async def ask(peer: Peer, node: str, question: Question) -> Answer:
    """Put ``question`` to the agent of ``node``. Raises ``Unreachable``, an HTTP error included."""
    from tidegate.kube import wire  # late: a command line asks by proxy, and reads these answers all the same

    request = Request("POST", QUESTION_PATH, (), {"content-type": "application/json"}, encode_question(question))
    status, _, body = await wire.fetch(peer, request)
    if status != 200:
        raise Unreachable(f"the agent of {node} answered {status}: {body[:120].decode(errors='replace')}")
    return decode_answer(body, node)


def _spell(endpoint: Endpoint) -> str:
    """Unlike ``str(endpoint)`` it can be read back: port 0 stands for every port, protocol after a slash."""
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{endpoint.port}/{endpoint.protocol}"


def _read(text: str) -> Endpoint:
    address, _, protocol = text.partition("/")
    return Endpoint.parse(address, protocol or "TCP")


def _to_wire(node: str, facts: Facts) -> _WireAnswer:
    routes = [
        _WireRoute(
            route.via, route.address, route.port, route.protocol, [_spell(to) for to in route.endpoints], route.service
        )
        for route in facts.routes
    ]
    tracked = [
        _WireTracked(one.protocol, one.state, _spell(one.source), _spell(one.destination), _spell(one.endpoint))
        for one in facts.tracked
    ]
    fence = [str(epoch) for epoch in facts.fence]
    unreadable = [(one.reason, one.where) for one in facts.unreadable]
    return _WireAnswer(PROTOCOL, node, facts.dump, facts.at, routes, fence, tracked, unreadable)


def _from_wire(raw: _WireAnswer) -> Facts:
    routes = tuple(
        Route(one.via, one.address, one.port, one.protocol, tuple(map(_read, one.endpoints)), one.service)
        for one in raw.routes
    )
    tracked = tuple(
        Tracked(one.protocol, one.state, _read(one.source), _read(one.destination), _read(one.endpoint))
        for one in raw.tracked
    )
    fence = tuple(Epoch.parse(text) for text in raw.fence)
    unreadable = tuple(Unreadable(reason, where) for reason, where in raw.unreadable)
    return Facts(raw.node, raw.dump, raw.at, routes, fence, tracked, unreadable)
