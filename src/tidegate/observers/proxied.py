"""The coordinator and the agents, asked through the API server's ``pods/proxy``: how a command line gets to them.

Works wherever the API server is reachable. RBAC says who may use ``pods/proxy``, and who is given a token for it
(``observers.asking``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tidegate.kube.api import LEASES, PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import AGENT_PORT, SYSTEM_NAMESPACE
from tidegate.observers import asking
from tidegate.observers.coordinator import (
    ACKNOWLEDGE_PATH,
    LEASE_NAME,
    SERVICES_MAX,
    STATUS_PATH,
    Ask,
    CoordinatorUnreachable,
    QuestionRefused,
    View,
    decode_view,
    lease_address,
    spell,
)

if TYPE_CHECKING:
    from tidegate.dataplane.sockets import Quiet
    from tidegate.observers.witness import Answer, Question

AGENT_LABELS = "app.kubernetes.io/name=tidegate,app.kubernetes.io/component=agent"
CONNECTIONS_PATH = "/v1/connections"


async def is_installed(client: KubeClient) -> bool:
    """Whether the cluster has a coordinator at all. Raises ``KubeError`` when that cannot be told."""
    try:
        await client.get(LEASES, LEASE_NAME, SYSTEM_NAMESPACE)
    except ApiError as error:
        if error.is_not_found:
            return False
        raise
    return True


class ProxiedCoordinator:
    """The Lease's holder, through pods/proxy; looked up anew after any failure."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._target: tuple[str, bool] | None = None

    async def acknowledge(self, ask: Ask) -> View:
        """Raises ``CoordinatorUnreachable``."""
        return decode_view(200, await self._call("POST", ACKNOWLEDGE_PATH, msgspec.json.encode(ask)))

    async def status(self, services: tuple[str, ...] = ()) -> dict[str, Any]:
        """The drains in flight: ``{"drains": [...]}``; the observers that are no nodes, and who routes by ``services``.

        Raises ``CoordinatorUnreachable``.
        """
        query = tuple(("service", name) for name in services[:SERVICES_MAX])
        body = await self._call("GET", STATUS_PATH, query=query)
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise CoordinatorUnreachable(f"the coordinator's status is not understood: {error}") from error

    async def _call(self, method: str, path: str, body: bytes = b"", query: tuple[tuple[str, str], ...] = ()) -> bytes:
        try:
            if self._target is None:
                lease = await self._client.get(LEASES, LEASE_NAME, SYSTEM_NAMESPACE)
                _, port = lease_address(lease)
                holder = str((lease.get("spec") or {}).get("holderIdentity"))
                self._target = asking.ask_target(holder, lease.get("metadata") or {}, port)
            return await call(self._client, self._target, Request(method, path, query, {}, body))
        except KubeError as error:
            self._target = None
            if isinstance(error, ApiError) and error.code == 400 and not error.reason:  # with one the API server's own
                raise QuestionRefused(f"the coordinator does not know the question ({_words(error)})") from error
            raise CoordinatorUnreachable(f"the coordinator does not answer: {error}") from error


def _words(error: ApiError) -> str:
    """Of an answer of Tidegate's own: what it says."""
    try:
        return str(msgspec.json.decode(error.message.partition(" answered 400: ")[2], type=dict[str, str])["error"])
    except (msgspec.DecodeError, KeyError):
        return error.message


class ProxiedAgents:
    """The node agents, through pods/proxy."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._targets: dict[str, tuple[str, bool]] = {}

    async def connections(self, node: str, endpoints: tuple[Endpoint, ...]) -> Quiet:
        """What is in flight at ``endpoints`` on ``node``. Never raises: no answer is unreadable."""
        from tidegate.dataplane.facts import Unreadable
        from tidegate.dataplane.sockets import Quiet
        from tidegate.observers import sockets

        query = tuple(("endpoint", text) for text in spell(endpoints))
        try:
            body = await self.call(node, Request("GET", CONNECTIONS_PATH, query))
        except KubeError as error:
            return Quiet(unreadable=(Unreadable(str(error), f"connections on {node}"),))
        return sockets.decode_quiet(body, node)

    async def ask(self, node: str, question: Question) -> Answer:
        """What ``node`` routes to. Raises ``KubeError``."""
        from tidegate.observers import witness

        body = witness.encode_question(question)
        headers = {"content-type": "application/json"}
        request = Request("POST", witness.QUESTION_PATH, (), headers, body)
        return witness.decode_answer(await self.call(node, request), node)

    async def call(self, node: str, request: Request) -> bytes:
        """Any request to the agent of ``node``. Raises ``KubeError``."""
        if node not in self._targets:
            select = Selection(SYSTEM_NAMESPACE, AGENT_LABELS, f"spec.nodeName={node}")
            found = (await self._client.list(PODS, select)).items
            if not found:
                raise ApiError(404, "NotFound", f"there is no agent on {node}")
            pod = _newest(found)
            self._targets[node] = asking.ask_target(pod["name"], pod, AGENT_PORT)
        try:
            return await call(self._client, self._targets[node], request)
        except KubeError:
            self._targets.pop(node, None)
            raise


def _newest(found: list[JsonObject]) -> JsonObject:
    """The metadata of the agent that stays: one that is told to leave holds what it holds, and answers nobody."""
    staying = [obj["metadata"] for obj in found if "deletionTimestamp" not in obj["metadata"]]
    return max(staying or [found[0]["metadata"]], key=lambda one: str(one.get("creationTimestamp") or ""))


async def call(client: KubeClient, target: tuple[str, bool], request: Request) -> bytes:
    """``request`` put to a pod of our namespace (``asking.ask_target``). Raises ``KubeError``."""
    name, wants_token = target
    headers = {"accept": "application/json", **request.headers}
    if wants_token:
        headers[asking.TOKEN_HEADER] = await client.token(SYSTEM_NAMESPACE, asking.ACCOUNT, asking.AUDIENCE)
    path = f"{PODS.path(SYSTEM_NAMESPACE, name)}/proxy{request.path}"
    response = await client.request(Request(request.method, path, request.query, headers, request.body))
    return await response.read()
