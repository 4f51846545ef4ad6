"""The lab's own questions, beside the Kubernetes API on the same port: status, faults, tokens under ``/lab/v1``.

Both ends: ``with_control`` answers them, ``apply_fault``, ``status_of``, ``register_token`` and ``tokens_of`` ask.
Tokens with rules of their own may not ask any of it. Errors are ``Status`` objects, so that
an API client understands them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Exchange, Request, Response, whole
from tidegate.lab.apiserver.access import Access, RuleError
from tidegate.lab.faults import Fault, FaultError, FaultKind, Faults, as_json

PREFIX = "/lab/v1"
FAULTS_PATH = f"{PREFIX}/faults"
STATUS_PATH = f"{PREFIX}/status"
TOKENS_PATH = f"{PREFIX}/tokens"


class _FaultRequest(msgspec.Struct, forbid_unknown_fields=True):
    kind: FaultKind
    node: str = ""
    seconds: float = 0.0
    share: float = 0.0


class _TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    rules: tuple[str, ...]
    namespace: str = ""


def with_control(exchange: Exchange, faults: Faults, status: Callable[[], dict[str, Any]], access: Access) -> Exchange:
    """``exchange`` with the lab's own paths in front of it."""

    async def answer(request: Request) -> Response:
        if not request.path.startswith(f"{PREFIX}/"):
            return await exchange(request)
        try:
            access.admit(request)
        except ApiError as error:
            return whole(error.code, msgspec.json.encode(error.status))
        if request.path == TOKENS_PATH:
            return _tokens(request, access)
        if request.path == FAULTS_PATH:
            return _faults(request, faults)
        if request.path == STATUS_PATH and request.method == "GET":
            return whole(200, msgspec.json.encode(status()))
        return _error(404, "NotFound", f"the lab has no {request.path}")

    return answer


def _faults(request: Request, faults: Faults) -> Response:
    if request.method == "POST":
        try:
            asked = msgspec.json.decode(request.body, type=_FaultRequest)
            faults.apply(Fault(asked.kind, asked.node, asked.seconds, asked.share))
        except (msgspec.MsgspecError, FaultError) as error:
            return _error(400, "BadRequest", str(error))
    elif request.method != "GET":
        return _error(405, "MethodNotAllowed", f"{request.method} is not for {request.path}")
    return whole(200, msgspec.json.encode([as_json(fault) for fault in faults.active()]))


def _tokens(request: Request, access: Access) -> Response:
    if request.method == "POST":
        try:
            asked = msgspec.json.decode(request.body, type=_TokenRequest)
            access.register(asked.name, asked.rules, asked.namespace)
        except (msgspec.MsgspecError, RuleError) as error:
            return _error(400, "BadRequest", str(error))
    elif request.method != "GET":
        return _error(405, "MethodNotAllowed", f"{request.method} is not for {request.path}")
    return whole(200, msgspec.json.encode(access.tokens()))


def _error(code: int, reason: str, message: str) -> Response:
    return whole(code, msgspec.json.encode(ApiError(code, reason, message).status))


async def apply_fault(client: KubeClient, fault: Fault) -> None:
    """Put a fault in force in the lab behind ``client``. Raises ``ApiError`` in the lab's own words."""
    headers = {"content-type": "application/json"}
    body = msgspec.json.encode(_FaultRequest(fault.kind, fault.node, fault.seconds, fault.share))
    response = await client.request(Request("POST", FAULTS_PATH, (), headers, body))
    await response.read()


async def status_of(client: KubeClient) -> dict[str, Any]:
    """What the lab behind ``client`` says of itself. Raises ``Unreachable``."""
    response = await client.request(Request("GET", STATUS_PATH))
    status: dict[str, Any] = msgspec.json.decode(await response.read())
    return status


async def register_token(client: KubeClient, name: str, rules: Sequence[str], namespace: str = "") -> None:
    """Let the token ``name`` do what ``rules`` say in the lab behind ``client``. Raises ``ApiError`` in its words."""
    headers = {"content-type": "application/json"}
    body = msgspec.json.encode(_TokenRequest(name, tuple(rules), namespace))
    response = await client.request(Request("POST", TOKENS_PATH, (), headers, body))
    await response.read()


async def tokens_of(client: KubeClient) -> list[dict[str, Any]]:
    """The registered tokens of the lab behind ``client``: name, token, rules."""
    response = await client.request(Request("GET", TOKENS_PATH))
    tokens: list[dict[str, Any]] = msgspec.json.decode(await response.read())
    return tokens
