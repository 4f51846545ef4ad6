"""The same story told to a real API server and to the lab's: what a client sees, made comparable.

Names, uids, versions, addresses and instants are replaced by their order of appearance, so that "the version did not
change" still compares and "it is 4711" does not.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tidegate.kube import wire
from tidegate.kube.exchange import Exchange, Request
from tidegate.kube.http import HttpTransport
from tidegate.kube.kubeconfig import Cluster, load
from tidegate.lab.apiserver.server import ApiServer

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ADDRESS = re.compile(r"\b(?:10\.96|127\.18)\.\d+\.\d+\b|\bfd(?:00:10:96|74:6964:6567:12)::[0-9a-f]+\b")
_TOKEN_VOLUME = re.compile(r"kube-api-access-[a-z0-9]{5}")
_SHOWN_VERSION = re.compile(r"(resourceVersion|continue)=[^&]*")
_AGE = re.compile(r"^\d+s$")
_VERSION_IN_WORDS = re.compile(r"(resource version: |current: |precondition \(|record \(|version: \d+ \()\d+")


@dataclass
class Answer:
    """What came back, as it came."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def rv(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])


@dataclass
class Side:
    """One of the two servers, and everything it was seen to answer."""

    exchange: Exchange
    namespace: str
    seen: list[tuple[str, Any]] = field(default_factory=list)
    _names: dict[str, dict[str, str]] = field(default_factory=dict)

    def path(self, path: str) -> str:
        """``pods/x`` in the story's namespace; an absolute path as it is; ``apps/deployments/x`` in group apps."""
        if path.startswith("/"):
            return path
        for group, version in (("apps", "v1"), ("discovery.k8s.io", "v1"), ("policy", "v1")):
            if path.startswith(f"{group}/"):
                rest = path.removeprefix(f"{group}/")
                return f"/apis/{group}/{version}/namespaces/{self.namespace}/{rest}"
        return f"/api/v1/namespaces/{self.namespace}/{path}"

    async def quietly(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """Ask without writing it down. ``kind``, ``accept`` and ``user`` are headers, the rest is the query."""
        kind, accept = query.pop("kind", "application/json"), query.pop("accept", "application/json")
        user = query.pop("user", "")
        pairs = tuple((key, str(value)) for key, value in query.items())
        sent = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"accept": accept} | ({"content-type": kind} if body is not None else {})
        headers |= {"impersonate-user": user} if user else {}
        async with asyncio.timeout(8):
            response = await self.exchange(Request(method, self.path(path), pairs, headers, sent))
            text = await response.read()
        try:
            decoded = json.loads(text)
        except ValueError:
            decoded = text.decode("utf-8", "replace")
        return Answer(response.status, decoded, dict(response.headers))

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """Ask, and write question and answer down."""
        answer = await self.quietly(method, path, body, **query)
        told = {"status": answer.status, "body": answer.body}
        for header in ("warning", "retry-after"):
            if header in answer.headers:
                told[header] = answer.headers[header]
        shown = "&".join(f"{key}={value}" for key, value in query.items() if key not in ("kind", "accept"))
        self.tell(f"{method} {path}{'?' if shown else ''}{shown}", told)
        return answer

    def tell(self, what: str, seen: Any) -> None:
        """Write down something seen."""
        self.seen.append((what, self.stable(seen)))

    async def watch(self, path: str, count: int, **query: Any) -> list[Any]:
        """The first ``count`` lines of a watch, or those of 5 s; written down by the caller."""
        pairs = tuple((key, str(value)) for key, value in {"watch": "true", "timeoutSeconds": 5, **query}.items())
        accept = {"accept": "application/json"}
        response = await self.exchange(Request("GET", self.path(path), pairs, accept))
        lines: list[Any] = []
        rest = b""
        try:
            async with asyncio.timeout(6):
                async for chunk in response.chunks:
                    *whole, rest = (rest + chunk).split(b"\n")
                    lines += [json.loads(line) for line in whole if line]
                    if len(lines) >= count:
                        break
        except TimeoutError:
            lines.append("silence")
        finally:
            await response.close()
        if rest.strip():
            lines.append(json.loads(rest))
        return lines[:count]  # events that are due together come in one chunk

    # -- the same for both

    def _alias(self, sort: str, text: str) -> str:
        known = self._names.setdefault(sort, {})
        return known.setdefault(text, f"<{sort}-{len(known) + 1}>")

    def stable(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            held = {name: item for name, item in value.items() if name != "managedFields"}
            if str(value.get("kind", "")).endswith(("List", "Table")) and "metadata" in held:
                held["metadata"] = _list_metadata(held["metadata"])
            return {name: self.stable(item, name) for name, item in sorted(held.items(), key=_uid_last)}
        if isinstance(value, list):
            return [self.stable(item) for item in value if not _is_openshift(item)]
        if key in ("nodePort", "healthCheckNodePort") and isinstance(value, int):
            return "<node-port>"
        if not isinstance(value, str):
            return value
        if key == "resourceVersion" and value.isdigit():
            return self._alias("version", value)
        if _AGE.match(value):
            return "<age>"
        value = value.replace(self.namespace, "<namespace>")
        value = _TIME.sub("<time>", _TOKEN_VOLUME.sub("kube-api-access-<drawn>", value))
        value = _UID.sub(lambda hit: self._alias("uid", hit[0]), value)
        value = _VERSION_IN_WORDS.sub(r"\1<version>", value)
        return _ADDRESS.sub(lambda hit: self._alias("address", hit[0]), value)


def _is_openshift(item: Any) -> bool:
    """One more source of the token volume: binaries built from OpenShift's tree patch it in."""
    return isinstance(item, dict) and (item.get("configMap") or {}).get("name") == "openshift-service-ca.crt"


def _uid_last(entry: tuple[str, Any]) -> tuple[bool, str]:
    """Aliases are drawn in key order, and the version before the rest: an order both sides share."""
    return entry[0] != "metadata", entry[0]


def _list_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """The version of a list is the server's, which has more to do than the story: only that there is one."""
    shown = {**metadata}
    for name in ("resourceVersion", "continue"):
        if name in shown:
            shown[name] = f"<{name}>" if shown[name] else ""
    return shown


def differences(real: Side, lab: Side) -> list[str]:
    """What the lab answered otherwise, one line per leaf: step, place, the real value, the lab's."""
    found: list[str] = []
    for number, ((what, wanted), (same, got)) in enumerate(zip(real.seen, lab.seen, strict=False), 1):
        assert _SHOWN_VERSION.sub("", what) == _SHOWN_VERSION.sub("", same), (what, same)
        found += [f"{number} {what}: {line}" for line in leaves(wanted, got, "")]
    if len(real.seen) != len(lab.seen):
        found.append(f"{len(real.seen)} steps against {len(lab.seen)}")
    return found


def leaves(real: Any, lab: Any, place: str) -> list[str]:
    if isinstance(real, dict) and isinstance(lab, dict):
        absent = object()
        lines = []
        for key in sorted({*real, *lab}):
            one, two = real.get(key, absent), lab.get(key, absent)
            if one is absent or two is absent:
                lines.append(f"{place}.{key}: real {_short(one, absent)}, lab {_short(two, absent)}")
            else:
                lines += leaves(one, two, f"{place}.{key}")
        return lines
    if isinstance(real, list) and isinstance(lab, list) and len(real) == len(lab):
        return [
            line
            for at, (one, two) in enumerate(zip(real, lab, strict=True))
            for line in leaves(one, two, f"{place}[{at}]")
        ]
    return [] if real == lab else [f"{place}: real {_short(real)}, lab {_short(lab)}"]


def _short(value: Any, absent: Any = None) -> str:
    return "nothing" if value is absent and absent is not None else json.dumps(value, default=str)[:400]


@asynccontextmanager
async def real_side(kubeconfig: str, namespace: str) -> AsyncIterator[Side]:
    transport = HttpTransport(load(kubeconfig))
    try:
        yield await _prepared(Side(transport, namespace))
    finally:
        await transport.close()


@asynccontextmanager
async def lab_side(namespace: str) -> AsyncIterator[Side]:
    """The lab's API server on a port of its own, as clients meet it."""
    api = ApiServer(random.Random(1))
    server = await wire.serve(api.exchange, "127.0.0.1", 0)
    transport = HttpTransport(Cluster(f"http://127.0.0.1:{server.port}"))
    try:
        yield await _prepared(Side(transport, namespace))
    finally:
        await transport.close()
        await server.close()


async def _prepared(side: Side) -> Side:
    """A namespace, and the service account that pods there want; both are a controller's work."""
    await side.quietly("POST", "/api/v1/namespaces", {"metadata": {"name": side.namespace}})
    await side.quietly("POST", "serviceaccounts", {"metadata": {"name": "default"}})
    return side


async def told_apart(kubeconfig: str, namespace: str, story: Any) -> list[str]:
    """Tell ``story`` to both; what differs."""
    async with real_side(kubeconfig, namespace) as real, lab_side(namespace) as lab:
        await story(real)
        await story(lab)
        return differences(real, lab)


__all__ = ["quote"]
