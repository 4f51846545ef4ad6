"""The agent's HTTP API on the node's address: what this node routes to, which connections a pod has, whether a pod
says that it is working, where connections through a Service go."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

import msgspec

from tidegate import __version__, vtime
from tidegate.agent.ground import PodSockets
from tidegate.agent.moving import Mover
from tidegate.agent.probing import Prober, TooManyProbes
from tidegate.agent.witness import NodeWitness
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import PODS, Api
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import Request, Response, whole
from tidegate.model import pod as pods
from tidegate.model.decode import Malformed
from tidegate.observers import activity, ledger, moving, probe, sockets, witness
from tidegate.observers.coordinator import read

QUESTIONS_MAX = 32
"""Open at once. One coordinator keeps one open; the rest is room for a second and for people who look."""
CONNECTIONS_PATH = "/v1/connections"
ENDPOINTS_MAX = 64
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


class Questions:
    """Answers questions; a caller too many is told to come again."""

    def __init__(self, own: NodeWitness, pod_sockets: PodSockets, api: Api, address: str) -> None:
        self._witness = own
        self._sockets = pod_sockets
        self._api = api
        self._prober = Prober(own.node, address, own.facts)
        self._open = 0
        self.ledger = Ledger()
        """What was kept of this node's drains."""
        self.mover: Mover | None = None
        """Asked on the port for peers alone: ``exchange`` of who asks with a token never gets there."""

    async def exchange(self, request: Request) -> Response:
        """POST /v1/question, GET /v1/connections?endpoint=IP:PORT, GET /v1/ledger?since=, GET /v1/about,
        GET /healthz."""
        match request.method, request.path:
            case "GET", "/healthz":
                return whole(200, b"ok", "text/plain")
            case "GET", witness.ABOUT_PATH:
                about = witness.About(self._witness.node, __version__, witness.PROTOCOL)
                return whole(200, msgspec.json.encode(about))
            case "POST", witness.QUESTION_PATH:
                return await self._question(request)
            case "GET", "/v1/connections":
                return await self._connections(request)
            case "GET", ledger.LEDGER_PATH:
                return await self._ledger(request)
            case "GET", activity.ACTIVITY_PATH:
                return await self._counted(self._activity(request))
            case "POST", probe.PROBE_PATH:
                return await self._counted(self._probe(request))
            case "POST", probe.CLOSE_PATH:
                return self._close(request)
            case _:
                return _refusal(404, f"{request.method} {request.path} is not asked here")

    async def peers_exchange(self, request: Request) -> Response:
        """The coordinator's: POST /v1/move beside all that anybody may ask."""
        if (request.method, request.path) != ("POST", moving.MOVE_PATH) or self.mover is None:
            return await self.exchange(request)
        try:
            asked = moving.decode_move(request.body)
        except ValueError as error:
            return _refusal(400, str(error))
        return await self._counted(self._move(self.mover, asked))

    async def _move(self, mover: Mover, asked: moving.Move) -> Response:
        return whole(200, msgspec.json.encode(await mover.move(asked)))

    async def _question(self, request: Request) -> Response:
        try:
            question = witness.decode_question(request.body)
        except ValueError as error:
            return _refusal(400, str(error))
        return await self._counted(self._testify(question))

    async def _testify(self, question: witness.Question) -> Response:
        return whole(200, witness.encode_answer(await self._witness.answer(question)))

    async def _counted(self, work: Coroutine[Any, Any, Response]) -> Response:
        """No more at once than there is room for."""
        if self._open >= QUESTIONS_MAX:
            work.close()
            return _refusal(429, f"{QUESTIONS_MAX} questions are open already")
        self._open += 1
        try:
            return await work
        finally:
            self._open -= 1

    async def _activity(self, request: Request) -> Response:
        """Only a pod of this node, only as its own annotation says: who may write that may ask the pod."""
        namespace, name = request.param("namespace"), request.param("pod")
        revision = next(iter(request.params("revision")), "")
        for one in (namespace, name, *request.params("revision")):
            if _NAME.fullmatch(one) is None:  # it becomes part of a path that the API server is asked for
                return _refusal(400, f"{one[:80]!r} is no name of a pod or a namespace")
        try:
            found = pods.decode(await self._api.get(PODS, name, namespace))
            wanted = activity.of_revision(found, revision) if revision else activity.of_pod(found)
        except (KubeError, Malformed, ValueError) as error:
            return _refusal(400, str(error))
        if found.node != self._witness.node or wanted is None or not found.ips:
            return _refusal(404, f"no pod {namespace}/{name} with an activity probe is on this node")
        answer = await activity.DialledActivity(wanted, found.ips[0]).ask()
        return whole(200, activity.encode_answer(answer, is_counted=bool(revision)))

    async def _probe(self, request: Request) -> Response:
        try:
            opened = await self._prober.open(probe.decode(request.body, probe.Probe))
        except ValueError as error:
            return _refusal(400, str(error))
        except TooManyProbes as error:
            return _refusal(429, str(error))
        return whole(200, msgspec.json.encode(opened))

    def _close(self, request: Request) -> Response:
        try:
            self._prober.close(probe.decode(request.body, probe.Close).batch)
        except ValueError as error:
            return _refusal(400, str(error))
        return whole(200, b"{}")

    async def _ledger(self, request: Request) -> Response:
        """The newest entries since an instant (RFC 3339), of one namespace and pod where they are named.

        Not on the loop: the file has up to 16 MiB, and gates need their heartbeats meanwhile."""
        return await vtime.to_thread(self._kept, request)

    def _kept(self, request: Request) -> Response:
        since, namespace, name = request.param("since"), request.param("namespace"), request.param("pod")
        kept = [
            one
            for one in self.ledger.read().entries
            if one.at >= since and namespace in ("", one.namespace) and name in ("", one.pod)
        ]
        return whole(200, ledger.encode(self._witness.node, kept))

    async def _connections(self, request: Request) -> Response:
        try:
            endpoints = read(tuple(request.params("endpoint")))
        except ValueError as error:
            return _refusal(400, str(error))
        if not endpoints or len(endpoints) > ENDPOINTS_MAX:
            return _refusal(400, f"ask about 1 to {ENDPOINTS_MAX} endpoints: ?endpoint=IP:PORT")
        quiet = await self._sockets.read(endpoints)
        return whole(200, sockets.encode_quiet(self._witness.node, quiet))


def _refusal(status: int, why: str) -> Response:
    return whole(status, msgspec.json.encode({"error": why}))
