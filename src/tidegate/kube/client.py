"""A Kubernetes API over an exchange: list, watch, patch, delete, and errors as the server sent them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from tidegate.kube.api import (
    ALL,
    SERVICEACCOUNTS,
    Deletion,
    JsonObject,
    Listing,
    Patch,
    Resource,
    Selection,
    WatchEvent,
)
from tidegate.kube.errors import ApiError, Unreachable, from_status
from tidegate.kube.exchange import Exchange, Request, Response
from tidegate.kube.execution import OUTPUT_BYTES_MAX, execute

_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
_WATCH_SECONDS = 290
"""Asked of the server for each watch: under the five minutes after which load balancers cut idle connections."""

CALL_SECONDS = 10.0
"""An API server that has not answered by then is taken for gone: one that hangs must cost a drain a retry, not its
whole deadline. A watch has this long to begin."""

TOKEN_SECONDS = 600
"""The least that an API server gives (k8s pkg/apis/authentication/validation)."""

LIST_PAGE = 500
"""Objects per page: kubectl's chunk size."""

FIELD_MANAGER = "tidegate"


class KubeClient:
    """Speaks ``kube.api.Api`` over ``exchange``."""

    def __init__(self, exchange: Exchange, server: str = "") -> None:
        self._exchange = exchange
        self._patience_seconds: float = getattr(exchange, "patience_seconds", 0.0)  # its tries are timed one by one
        self.server = server
        self._tokens: dict[tuple[str, str, str], asyncio.Future[tuple[str, float]]] = {}

    async def request(self, request: Request) -> Response:
        """Any request. Raises ``ApiError`` for an answer of 400 or more."""
        response = await self._exchange(request)
        if response.status >= 400:
            raise _error(response.status, await response.read(), self.server)
        return response

    async def exchange(self, request: Request) -> Response:
        """Any request, its answer as it came: through ``pods/proxy`` an answer of 503 may be the pod's own."""
        return await self._exchange(request)

    async def execute(
        self, path: str, container: str, command: tuple[str, ...], bytes_max: int = OUTPUT_BYTES_MAX
    ) -> tuple[int, bytes]:
        """(exit code, output) of a command in a container; ``path`` is the pod's exec subresource, and ``bytes_max``
        how much of its output is kept.

        Raises ``ApiError`` and ``Unreachable``; waits for as long as the command runs.
        """
        return await execute(self._exchange, path, container, command, bytes_max)

    async def _call(self, method: str, path: str, query: dict[str, str], body: bytes = b"", kind: str = "") -> Any:
        headers = {"accept": "application/json"}
        if body:
            headers["content-type"] = kind or "application/json"
        async with self._in_time(f"{method} {path}") as clock:
            response = await self.request(Request(method, path, tuple(query.items()), headers, body))
            if self._patience_seconds:
                clock.reschedule(asyncio.get_running_loop().time() + CALL_SECONDS)
            return _decode(await response.read())

    @contextlib.asynccontextmanager
    async def _in_time(self, what: str) -> AsyncIterator[asyncio.Timeout]:
        """``Unreachable`` after ``CALL_SECONDS`` without an answer; where it is asked again, after the last of them."""
        seconds = CALL_SECONDS + self._patience_seconds
        try:
            async with asyncio.timeout(seconds) as clock:
                yield clock
        except TimeoutError as error:
            raise Unreachable(f"no answer within {seconds:g} s to {what}") from error

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        found: JsonObject = await self._call("GET", resource.path(namespace, name), {})
        return found

    async def list(self, resource: Resource, select: Selection = ALL, resource_version: str = "") -> Listing:
        query = _select(select)
        if resource_version:
            query["resourceVersion"] = resource_version
        else:
            query["limit"] = str(LIST_PAGE)
        items: list[JsonObject] = []
        while True:
            page = await self._call("GET", resource.path(select.namespace), query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        for item in items:  # a list leaves out what every item has in common
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return Listing(items, str(metadata.get("resourceVersion") or ""))

    async def watch(
        self, resource: Resource, select: Selection = ALL, resource_version: str = ""
    ) -> AsyncIterator[WatchEvent]:
        query = {**_select(select), "watch": "true", "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(_WATCH_SECONDS)
        if resource_version:
            query["resourceVersion"] = resource_version
        request = Request("GET", resource.path(select.namespace), tuple(query.items()), {"accept": "application/json"})
        async with self._in_time(f"watch of {request.path}"):
            response = await self.request(request)
        rest = b""
        try:
            async for chunk in response.chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield _event(line)
        finally:
            await response.close()

    async def create(
        self, resource: Resource, obj: JsonObject, namespace: str = "", subresource: str = ""
    ) -> JsonObject:
        metadata = obj.get("metadata") or {}
        space = namespace or str(metadata.get("namespace") or "")
        name = str(metadata.get("name") or "") if subresource else ""
        path = resource.path(space, name, subresource)
        made: JsonObject = await self._call("POST", path, {"fieldManager": FIELD_MANAGER}, msgspec.json.encode(obj))
        return made

    async def token(self, namespace: str, account: str, audience: str) -> str:
        """A service account's token for ``audience``, of ten minutes; asked for once, and again when half of that is
        over. Raises ``ApiError`` and ``Unreachable``."""
        loop, key = asyncio.get_running_loop(), (namespace, account, audience)
        held = self._tokens.get(key)
        is_spent = held is not None and held.done() and (held.cancelled() or held.exception() is not None)
        if held is None or is_spent or (held.done() and held.result()[1] <= loop.time()):
            held = self._tokens[key] = loop.create_task(self._token(namespace, account, audience))
        return (await asyncio.shield(held))[0]

    async def _token(self, namespace: str, account: str, audience: str) -> tuple[str, float]:
        until = asyncio.get_running_loop().time() + TOKEN_SECONDS / 2
        spec = {"audiences": [audience], "expirationSeconds": TOKEN_SECONDS}
        asked = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}
        path = SERVICEACCOUNTS.path(namespace, account, "token")
        made = await self._call("POST", path, {}, msgspec.json.encode(asked))
        return str((made.get("status") or {}).get("token") or ""), until

    async def replace(self, resource: Resource, obj: JsonObject, subresource: str = "") -> JsonObject:
        metadata = obj["metadata"]
        path = resource.path(str(metadata.get("namespace") or ""), metadata["name"], subresource)
        stored: JsonObject = await self._call("PUT", path, {"fieldManager": FIELD_MANAGER}, msgspec.json.encode(obj))
        return stored

    async def patch(self, resource: Resource, name: str, patch: Patch, namespace: str = "") -> JsonObject:
        query = {"fieldManager": FIELD_MANAGER}
        if patch.dry_run:
            query["dryRun"] = "All"
        path = resource.path(namespace, name, patch.subresource)
        body = msgspec.json.encode(patch.body)
        stored: JsonObject = await self._call("PATCH", path, query, body, _PATCH_TYPES[patch.style])
        return stored

    async def apply(
        self, resource: Resource, obj: JsonObject, *, is_forced: bool = False, dry_run: bool = False
    ) -> JsonObject:
        """Server-side apply under our field manager: made where it is missing. Fields that another manager keeps are a
        conflict (409), unless ``is_forced``."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if is_forced else "false"}
        if dry_run:
            query["dryRun"] = "All"
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace", ""), metadata["name"])
        body = msgspec.json.encode(obj)
        stored: JsonObject = await self._call("PATCH", path, query, body, "application/apply-patch+yaml")
        return stored

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", options: Deletion = Deletion()
    ) -> JsonObject:
        body: JsonObject = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if options.grace_seconds is not None:
            body["gracePeriodSeconds"] = options.grace_seconds
        if options.propagation:
            body["propagationPolicy"] = options.propagation
        preconditions = {"uid": options.uid, "resourceVersion": options.resource_version}
        if any(preconditions.values()):
            body["preconditions"] = {key: value for key, value in preconditions.items() if value}
        if options.dry_run:  # in the body: beside one the server does not read ?dryRun, and deletes (seen on 1.36)
            body["dryRun"] = ["All"]
        path = resource.path(namespace, name)
        answer: JsonObject = await self._call("DELETE", path, {}, msgspec.json.encode(body))
        return answer


def _select(select: Selection) -> dict[str, str]:
    query = {}
    if select.labels:
        query["labelSelector"] = select.labels
    if select.fields:
        query["fieldSelector"] = select.fields
    return query


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise Unreachable(f"the server did not answer in JSON: {body[:80]!r}") from error


def _event(line: bytes) -> WatchEvent:
    decoded = _decode(line)
    if decoded.get("type") == "ERROR":
        raise from_status(decoded.get("object") or {})
    return WatchEvent(decoded["type"], decoded["object"])


def _error(status: int, body: bytes, server: str) -> ApiError:
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError:
        decoded = None
    if isinstance(decoded, dict) and decoded.get("kind") == "Status":
        if status == 401:
            decoded["message"] = f"{server} does not accept these credentials: {decoded.get('message')}"
        return from_status({**decoded, "code": decoded.get("code") or status})
    text = body[:200].decode("utf-8", "replace").strip()
    return ApiError(status, "", f"{server or 'the server'} answered {status}: {text}")
