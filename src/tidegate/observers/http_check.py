"""Kind ``http``: anything that answers, over plain HTTP, whether it still routes to an endpoint.

One request for each endpoint asked about. The answer is 200 with JSON: ``{"routed": true|false}``, and ``"epoch": n``
where the answerer can tell up to which of the fence's epochs it has applied everything (then it is evidence like a
node's). Another shape is described by ``letGoWhen``. Whatever else comes back is unreadable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, parse_target
from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.epoch import Epoch
from tidegate.observers.external import Fencing, Question, Replica, Spec, host_and_port, replicas_of
from tidegate.observers.options import Asking, decode_options, filled, of_services

CONCURRENT_MAX = 16


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value at a dotted ``path`` of the answer ``equals`` this. A path that is not there is unreadable."""

    path: str
    equals: Any

    def holds(self, answer: Any) -> bool:
        """Raises ``ValueError`` where the path leads nowhere."""
        for step in self.path.split("."):
            if isinstance(answer, list) and step.isdigit() and int(step) < len(answer):
                answer = answer[int(step)]
            elif isinstance(answer, dict) and step in answer:
                answer = answer[step]
            else:
                raise ValueError(f"the answer has no {self.path}")
        return bool(answer == self.equals) and type(answer) is type(self.equals)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``path``, ``body`` and ``headers`` are templates: {endpoint} {address} {port} {protocol} {epoch} {question}; port
    0 is every port of the address. ``additions_of``: ``options.Asking``; ``sends_when`` is ``let_go_when`` of those:
    what has not let go may not send yet either."""

    path: str
    method: str = "GET"
    body: str = ""
    headers: dict[str, str] = {}
    let_go_when: Condition | None = None
    absent_status: tuple[int, ...] = ()
    covers: tuple[str, ...] = ()
    additions_of: tuple[str, ...] = ()
    sends_when: Condition | None = None


class HttpCheck(Asking):
    """Observer of kind ``http``."""

    fencing = Fencing.SINGLE

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        if self._options.method not in ("GET", "POST") or not self._options.path.startswith("/"):
            raise ValueError(f"{spec.path}: the method is GET or POST, and the path begins with a slash")
        self.covers = self._options.covers
        self._additions_of = of_services(self._options.additions_of, spec.path)
        if self._additions_of and self._options.let_go_when is not None and self._options.sends_when is None:
            raise ValueError(
                f"{spec.path}.sendsWhen: what has not let go may not send yet; say which answer means that"
            )

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        return replicas_of(self._where, slices)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable``."""
        host, port = host_and_port(replica.address)
        peer = wire.Peer(host, port, timeout_seconds=question.timeout_seconds)
        turn = asyncio.Semaphore(CONCURRENT_MAX)

        async def one(endpoint: Endpoint) -> tuple[bool, int | None]:
            async with turn:
                return self._read(question.kind, *await self._fetch(peer, endpoint, question))

        found = await asyncio.gather(*(one(endpoint) for endpoint in question.endpoints), return_exceptions=True)
        routes, epochs, problems = [], [], []
        for endpoint, answer in zip(question.endpoints, found, strict=True):
            if isinstance(answer, ValueError):
                problems.append(Unreadable(str(answer), f"answer about {endpoint}"))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                is_routed, number = answer
                routes += [Route("http", "", 0, endpoint.protocol, (endpoint,))] if is_routed else []
                epochs.append(number)
        # One answer without an epoch leaves all of them weak: they are told apart by nothing.
        shown = (
            () if None in epochs else tuple(Epoch(question.install, number) for number in epochs if number is not None)
        )
        return Facts(replica.name, "http", routes=tuple(routes), fence=shown, unreadable=tuple(problems))

    async def _fetch(self, peer: wire.Peer, endpoint: Endpoint, question: Question) -> tuple[int, bytes]:
        about = (endpoint, question.epoch, question.kind)
        path, query = parse_target(filled(self._options.path, *about))
        headers = {"accept": "application/json"}
        headers |= {name.lower(): filled(text, *about) for name, text in self._options.headers.items()}
        body = filled(self._options.body, *about).encode()
        status, _, answer = await wire.fetch(peer, Request(self._options.method, path, query, headers, body))
        if status >= 500:
            raise Unreachable(f"{peer.host}:{peer.port} answered {status}")
        return status, answer

    def _read(self, kind: str, status: int, body: bytes) -> tuple[bool, int | None]:
        """Whether it is routed, and the epoch shown. Raises ``ValueError``."""
        if status in self._options.absent_status:
            return False, None
        if status != 200:
            raise ValueError(f"status {status}")
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"not JSON: {error}") from error
        number = answer.get("epoch") if isinstance(answer, dict) else None
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
            raise ValueError(f"{number!r} is no epoch")
        if number is not None:
            Epoch("", number)  # within the circle, or ValueError
        if kind == "routed" and self._options.sends_when is not None:
            return self._options.sends_when.holds(answer), number
        if self._options.let_go_when is not None:
            return not self._options.let_go_when.holds(answer), number
        routed = answer.get("routed") if isinstance(answer, dict) else None
        if not isinstance(routed, bool):
            raise ValueError('no "routed": true or false')
        return routed, number
