"""Kind ``tcp``: the behavioural question. Connect through a frontend, and see who answers.

For what shows nothing of itself. ``samples`` connections are opened through the frontend, ``send`` is written on each,
and an endpoint is routed to when ``mark`` (a template, by default its address) stands in what comes back. So the
backends must say who they are. A frontend that chooses at random may have passed an endpoint over: the answer is weak
evidence always. Who did answer is sent to, and counts as added for ``MET_SECONDS``. A connection that is refused, or
says nothing, leaves it unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from tidegate.dataplane.facts import Facts, Route
from tidegate.kube.errors import Unreachable
from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice
from tidegate.observers.external import Fencing, Question, Replica, Spec, host_and_port, replicas_of
from tidegate.observers.options import Asking, decode_options, filled, of_services

ANSWER_BYTES_MAX = 16_384
SAMPLES_MAX = 256
MET_SECONDS = 15.0
"""How long an added endpoint counts as met: chance may pass it over in the next samples."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``samples``: connections per question. ``send``: written on each, as it stands (escapes as in YAML).
    ``additions_of``: ``options.Asking``."""

    samples: int = 20
    send: str = ""
    mark: str = "{address}"
    covers: tuple[str, ...] = ()
    additions_of: tuple[str, ...] = ()


class TcpCheck(Asking):
    """Observer of kind ``tcp``."""

    fencing = Fencing.SINGLE

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        if not 0 < self._options.samples <= SAMPLES_MAX:
            raise ValueError(f"{spec.path}.samples: 1 to {SAMPLES_MAX} connections")
        if not filled(self._options.mark, Endpoint("192.0.2.1"), None) or self._options.mark == filled(
            self._options.mark, Endpoint("192.0.2.1"), None
        ):
            raise ValueError(f"{spec.path}.mark: it tells no endpoint from another without {{address}} or {{endpoint}}")
        self.covers = self._options.covers
        self._additions_of = of_services(self._options.additions_of, spec.path)
        self._met: dict[tuple[str, Endpoint], float] = {}

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        return replicas_of(self._where, slices)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable`` when any sample failed: an answer that never came may have been the pod's."""
        try:
            async with asyncio.timeout(question.timeout_seconds):
                answers = [await self._sample(replica) for _ in range(self._options.samples)]
        except TimeoutError as error:
            raise Unreachable(f"{replica.address}: no answers within {question.timeout_seconds:g} s") from error
        except OSError as error:
            raise Unreachable(f"{replica.address}: {error.strerror or error}") from error
        routed = [
            endpoint
            for endpoint in question.endpoints
            if any(_holds(answer, filled(self._options.mark, endpoint, question.epoch).encode()) for answer in answers)
        ]
        if question.kind == "routed":
            now = asyncio.get_running_loop().time()
            self._met = {key: at for key, at in self._met.items() if now - at < MET_SECONDS}
            self._met |= {(replica.name, endpoint): now for endpoint in routed}
            routed = [endpoint for endpoint in question.endpoints if (replica.name, endpoint) in self._met]
        routes = tuple(Route("tcp", "", 0, endpoint.protocol, (endpoint,)) for endpoint in routed)
        return Facts(replica.name, f"{self._options.samples} connections", routes=routes)

    async def _sample(self, replica: Replica) -> bytes:
        reader, writer = await asyncio.open_connection(*host_and_port(replica.address))
        try:
            writer.write(self._options.send.encode())
            answer = await reader.read(ANSWER_BYTES_MAX)
        finally:
            writer.close()
        if not answer:
            raise Unreachable(f"{replica.address}: a connection was closed without a word")
        return answer


def _holds(answer: bytes, mark: bytes) -> bool:
    """Whether ``mark`` stands there by itself: 10.0.0.1 is no part of 10.0.0.11."""
    at = answer.find(mark)
    while at >= 0:
        before, after = answer[at - 1 : at] if at else b"", answer[at + len(mark) : at + len(mark) + 1]
        if not before.isalnum() and not after.isalnum():
            return True
        at = answer.find(mark, at + 1)
    return False
