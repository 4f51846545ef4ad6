"""Where a release is written down: what is asked for (people's) and where it stands (the engine's), side by side.

Without CustomResourceDefinitions that is a ConfigMap beside the workload, ``tidegate-release-NAME``; with them it is
the Release object. Every write tests the version that was read, so of two engines one wins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from tidegate.kube.api import CONFIGMAPS, Api, Deletion, JsonObject, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.model.names import MANAGED_BY, TIDEGATE
from tidegate.release.record import Status, decode_status, encode_status
from tidegate.release.spec import Spec, decode_spec, encode_spec

RELEASE_LABEL = "tidegate.dev/release"
"""On the ConfigMap, and on what a release makes beside Deployments: the workload's name."""
PREFIX = "tidegate-release-"


@dataclass(frozen=True, slots=True)
class Entry:
    """``generation`` grows with every change of the spec. ``version`` is the object's resourceVersion."""

    namespace: str
    name: str
    spec: Spec
    status: Status
    generation: int
    version: str
    uid: str = ""
    is_leaving: bool = False
    """It is being deleted: native objects are to go on without it."""


class Book(Protocol):
    """The written release of one workload."""

    async def read(self) -> Entry | None:
        """None where there is none. Raises ``KubeError``, ``Invalid``."""
        ...

    async def remember(self, entry: Entry, status: Status) -> Entry:
        """Write where it stands. Raises ``ApiError`` (a conflict where somebody wrote meanwhile)."""
        ...


class AskableBook(Book, Protocol):
    """One that people write into as well."""

    async def ask(self, entry: Entry, spec: Spec) -> Entry:
        """Ask for something else. Raises ``ApiError``."""
        ...

    async def begin(self, spec: Spec, status: Status | None = None) -> Entry:
        """The first release of the workload. Raises ``ApiError`` (409 where there is one)."""
        ...


class ConfigMapBook:
    """Keys ``spec`` and ``status`` (JSON) and ``generation`` of a ConfigMap."""

    def __init__(self, api: Api, namespace: str, workload: str) -> None:
        self._api = api
        self.namespace = namespace
        self.workload = workload
        self.name = f"{PREFIX}{workload}"

    async def read(self) -> Entry | None:
        try:
            return entry_of(await self._api.get(CONFIGMAPS, self.name, self.namespace))
        except ApiError as error:
            if not error.is_not_found:
                raise
            return None

    async def remember(self, entry: Entry, status: Status) -> Entry:
        return entry_of(await self._write(entry, {"status": _text(encode_status(status))}))

    async def ask(self, entry: Entry, spec: Spec) -> Entry:
        """Ask for something else. Raises ``ApiError``."""
        data = {"spec": _text(encode_spec(spec)), "generation": str(entry.generation + 1)}
        return entry_of(await self._write(entry, data))

    async def begin(self, spec: Spec, status: Status | None = None) -> Entry:
        """The first release of the workload. Raises ``ApiError`` (409 where there is one)."""
        data = {"spec": _text(encode_spec(spec)), "status": _text(encode_status(status or Status())), "generation": "1"}
        labels = {RELEASE_LABEL: self.workload, MANAGED_BY: TIDEGATE}
        metadata = {"name": self.name, "namespace": self.namespace, "labels": labels}
        made: JsonObject = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        return entry_of(await self._api.create(CONFIGMAPS, made, self.namespace))

    async def delete(self, entry: Entry) -> None:
        await self._api.delete(CONFIGMAPS, self.name, self.namespace, Deletion(uid=entry.uid))

    async def _write(self, entry: Entry, data: dict[str, str]) -> JsonObject:
        metadata = {"resourceVersion": entry.version, "uid": entry.uid}
        return await self._api.patch(CONFIGMAPS, self.name, Patch({"metadata": metadata, "data": data}), self.namespace)


async def list_books(api: Api, namespace: str) -> list[Entry]:
    """Every release that is written in ConfigMaps; "" for all namespaces. Raises ``KubeError``, ``Invalid``."""
    found = await api.list(CONFIGMAPS, Selection(namespace, RELEASE_LABEL))
    return [entry_of(obj) for obj in found.items if obj["metadata"]["name"].startswith(PREFIX)]


def entry_of(obj: JsonObject) -> Entry:
    """Of a ConfigMap. Raises ``Invalid`` and ``ValueError`` for one that nobody of ours wrote."""
    metadata, data = obj["metadata"], obj.get("data") or {}
    return Entry(
        namespace=metadata["namespace"],
        name=metadata["name"],
        spec=decode_spec(json.loads(data.get("spec", "{}"))),
        status=decode_status(json.loads(data.get("status", "{}"))),
        generation=int(data.get("generation", "0")),
        version=metadata["resourceVersion"],
        uid=metadata["uid"],
        is_leaving="deletionTimestamp" in metadata,
    )


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
