"""The shape an answer takes: plain objects, metadata only, or the Table that kubectl prints.

Picked from the Accept header. Kubernetes clients also offer protobuf; JSON is always acceptable to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tidegate import vtime
from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.listing import Page
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.schema import tables
from tidegate.lab.apiserver.versions import Event, Version, encode, watch_line

JSON = "application/json"
_AVAILABLE = (JSON, "application/yaml", "application/vnd.kubernetes.protobuf")


@lru_cache(maxsize=256)
def negotiate(accept: str) -> tuple[str, str]:
    """(shape, version) of an Accept header: ("", "") plain, ("Table", "v1"), ("PartialObjectMetadata", "v1")..."""
    is_acceptable = False
    for offer in accept.split(","):
        kind, *parameters = (part.strip() for part in offer.split(";"))
        is_acceptable = is_acceptable or kind in (*_AVAILABLE, "*/*", "application/*")
        if kind not in (JSON, "*/*", "application/*"):
            continue
        settings = dict(part.partition("=")[::2] for part in parameters)
        wanted = settings.get("as", "")
        if not wanted:
            return "", ""
        version = settings.get("v", "v1")
        is_meta = settings.get("g", "meta.k8s.io") == "meta.k8s.io" and version in ("v1", "v1beta1")
        if is_meta and wanted in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList"):
            return wanted, version
    if not is_acceptable:
        raise failures.not_acceptable(list(_AVAILABLE))
    if _AVAILABLE[2] not in accept and _AVAILABLE[1] not in accept:
        raise failures.not_acceptable(list(_AVAILABLE), as_object=True)
    return "", ""


class Plain:
    """Objects as stored, from the bytes each version keeps."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def one(self, version: Version) -> bytes:
        conversion = self.row.conversion
        if conversion is None or version.object.get("kind") != self.row.kind:
            return version.encoded
        return encode(conversion.from_storage(version.object))

    def many(self, page: Page) -> bytes:
        head: JsonObject = {
            "kind": self.row.list_kind,
            "apiVersion": self.row.resource.api_version,
            "metadata": list_metadata(page),
        }
        if self.row.custom is not None:  # a list without a type says that there is nothing more to come
            head["metadata"].setdefault("continue", "")
        items = b",".join([self.one(version) for version in page.versions])
        return encode(head)[:-1] + b',"items":[' + items + b"]}"

    def line(self, kind: str, version: Version, event: Event | None) -> bytes:
        if event is not None and self.row.conversion is None:
            return event.line(kind)
        return watch_line(kind, self.one(version))


def list_metadata(page: Page) -> JsonObject:
    metadata: JsonObject = {"resourceVersion": str(page.rv)}
    if page.token:
        metadata["continue"] = page.token
        if page.remaining:
            metadata["remainingItemCount"] = page.remaining
    return metadata


class Partial(Plain):
    """PartialObjectMetadata: kind, apiVersion and metadata only."""

    def __init__(self, row: Row, version: str) -> None:
        super().__init__(row)
        self._api_version = f"meta.k8s.io/{version}"

    def one(self, version: Version) -> bytes:
        return encode(self._bare(version))

    def _bare(self, version: Version) -> JsonObject:
        metadata = version.object["metadata"]
        return {"kind": "PartialObjectMetadata", "apiVersion": self._api_version, "metadata": metadata}

    def many(self, page: Page) -> bytes:
        return encode(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": self._api_version,
                "metadata": list_metadata(page),
                "items": [self._bare(version) for version in page.versions],
            }
        )

    def line(self, kind: str, version: Version, event: Event | None) -> bytes:
        return watch_line(kind, self.one(version))


@dataclass(frozen=True, slots=True)
class TableStyle:
    """What ``includeObject`` asks of each row, and the Table's own version."""

    include: str
    version: str


class Tabular(Plain):
    """Tables, one row per object, printed by the server."""

    def __init__(self, row: Row, style: TableStyle) -> None:
        super().__init__(row)
        self._style = style

    def one(self, version: Version) -> bytes:
        if version.object.get("kind") != self.row.kind:
            return version.encoded
        table = self._table([version])
        table["metadata"] = {"resourceVersion": version.object["metadata"].get("resourceVersion", "")}
        return encode(table)

    def many(self, page: Page) -> bytes:
        table = self._table(page.versions)
        table["metadata"] = list_metadata(page)
        return encode(table)

    def line(self, kind: str, version: Version, event: Event | None) -> bytes:
        return watch_line(kind, self.one(version))

    def _table(self, versions: list[Version]) -> dict[str, Any]:
        objects = [version.object for version in versions]
        options = tables.Options(self._style.include, self._style.version)
        if self.row.custom is not None:
            return self.row.custom.table(objects, vtime.now(), options)
        return tables.table(self.row.kind, objects, vtime.now(), options)


def shape(row: Row, accept: str, include: str = "") -> Plain:
    """The shape for one request."""
    wanted, version = negotiate(accept) if accept not in ("", JSON, "*/*") else ("", "")
    if not wanted:
        return Plain(row)
    if wanted == "Table":
        if include not in ("", "Metadata", "Object", "None"):
            why = f"includeObject: Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
            raise failures.bad_request(f"Unable to convert to Table as requested: {why}")
        return Tabular(row, TableStyle(include or "Metadata", version))
    return Partial(row, version)
