"""The lab's own questions, beside the Kubernetes API on the same port: status and faults under ``/lab/v1``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tidegate.kube.exchange import Exchange, Request, Response, whole
from tidegate.lab.faults import Fault, FaultError, Faults, as_json

PREFIX = "/lab/v1"
FAULTS_PATH = f"{PREFIX}/faults"
STATUS_PATH = f"{PREFIX}/status"


class _FaultRequest(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    node: str
    seconds: float = 0.0


def with_control(exchange: Exchange, faults: Faults, status: Callable[[], dict[str, Any]]) -> Exchange:
    """``exchange`` with the lab's own paths in front of it."""

    async def answer(request: Request) -> Response:
        if not request.path.startswith(f"{PREFIX}/"):
            return await exchange(request)
        if request.path == FAULTS_PATH:
            return _faults(request, faults)
        if request.path == STATUS_PATH and request.method == "GET":
            return whole(200, msgspec.json.encode(status()))
        return _error(404, f"the lab has no {request.path}")

    return answer


def _faults(request: Request, faults: Faults) -> Response:
    if request.method == "POST":
        try:
            asked = msgspec.json.decode(request.body, type=_FaultRequest)
            faults.apply(Fault(asked.kind, asked.node, asked.seconds))  # type: ignore[arg-type]
        except (msgspec.MsgspecError, FaultError) as error:
            return _error(400, str(error))
    elif request.method != "GET":
        return _error(405, f"{request.method} is not for {request.path}")
    return whole(200, msgspec.json.encode([as_json(fault) for fault in faults.active()]))


def _error(status: int, message: str) -> Response:
    return whole(status, msgspec.json.encode({"error": message}))
