"""The agent's HTTP API on the node's address: what this node routes to, and which connections a pod has."""

from __future__ import annotations

import msgspec

from tidegate import __version__
from tidegate.agent.witness import NodeWitness
from tidegate.kube.exchange import Request, Response, whole
from tidegate.observers import sockets, witness
from tidegate.observers.coordinator import read

QUESTIONS_MAX = 32
"""Open at once. One coordinator keeps one open; the rest is room for a second and for people who look."""
CONNECTIONS_PATH = "/v1/connections"
ENDPOINTS_MAX = 64


class Questions:
    """Answers questions; a caller too many is told to come again."""

    def __init__(self, own: NodeWitness, kubelet_pid: int) -> None:
        self._witness = own
        self._kubelet_pid = kubelet_pid
        self._open = 0

    async def exchange(self, request: Request) -> Response:
        """POST /v1/question, GET /v1/connections?endpoint=IP:PORT, GET /v1/about, GET /healthz."""
        match request.method, request.path:
            case "GET", "/healthz":
                return whole(200, b"ok", "text/plain")
            case "GET", witness.ABOUT_PATH:
                about = witness.About(self._witness.node, __version__, witness.PROTOCOL)
                return whole(200, msgspec.json.encode(about))
            case "POST", witness.QUESTION_PATH:
                return await self._question(request)
            case "GET", "/v1/connections":
                return self._connections(request)
            case _:
                return _refusal(404, f"{request.method} {request.path} is not asked here")

    async def _question(self, request: Request) -> Response:
        try:
            question = witness.decode_question(request.body)
        except ValueError as error:
            return _refusal(400, str(error))
        if self._open >= QUESTIONS_MAX:
            return _refusal(429, f"{QUESTIONS_MAX} questions are open already")
        self._open += 1
        try:
            return whole(200, witness.encode_answer(await self._witness.answer(question)))
        finally:
            self._open -= 1

    def _connections(self, request: Request) -> Response:
        try:
            endpoints = read(tuple(request.params("endpoint")))
        except ValueError as error:
            return _refusal(400, str(error))
        if not endpoints or len(endpoints) > ENDPOINTS_MAX:
            return _refusal(400, f"ask about 1 to {ENDPOINTS_MAX} endpoints: ?endpoint=IP:PORT")
        quiet = sockets.read_quiet(endpoints, self._kubelet_pid)
        return whole(200, sockets.encode_quiet(self._witness.node, quiet))


def _refusal(status: int, why: str) -> Response:
    return whole(status, msgspec.json.encode({"error": why}))
