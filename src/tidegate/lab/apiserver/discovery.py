"""Discovery, version, health and OpenAPI: answers that depend on the registry only, encoded once.

Two forms are needed (measured): aggregated v2 for kubectl >= 1.30, legacy for everyone else. kubectl <= 1.29 asks
for ``v=v2beta1`` only and every command fails when it is answered v2, so v2 is sent only to who lists ``v=v2``.
"""

from __future__ import annotations

from collections.abc import Callable

from tidegate.kube.api import JsonObject
from tidegate.kube.exchange import Request, Response, whole
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.registry import Registry, Row, Subresource
from tidegate.lab.apiserver.schema import openapi
from tidegate.lab.apiserver.versions import encode

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

VERSION: JsonObject = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2+tidegate",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.26",
    "compiler": "gc",
    "platform": "linux/amd64",
}
"""The Kubernetes release whose answers the lab was recorded against."""

OPENAPI_V2_ASKED = "com.github.proto-openapi.spec.v2@v1.0+protobuf"
OPENAPI_V2 = b"\x0a\x032.0\x12\x0f\x0a\x08tidegate\x12\x031.0"
"""An ``openapi.v2.Document`` with a title and nothing defined. kubectl asks for version 2 before it takes a
``kind: List`` from a file, checks each item against it and skips kinds the document lacks (measured; kubectl's
openapi/validation ValidateBytes); everything else is checked by this server or read from version 3."""

HEALTH = ("/healthz", "/readyz", "/livez")


class Discovery:
    """What is served, told to clients. Encoded once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._cache: dict[str, bytes] = {}
        self._revision = registry.revision

    def answer(self, request: Request) -> Response | None:
        """The response, or None when the path is a resource's."""
        path = request.path.rstrip("/") or "/"
        if self._revision != self._registry.revision:
            self._cache.clear()
            self._revision = self._registry.revision
        depth = path.count("/")
        if path.startswith(("/api/", "/apis/")) and depth > 3:
            return None
        if path in ("/api", "/apis"):
            return self._root(path, request.headers.get("accept", ""))
        if path == "/version":
            return self._encoded(path, lambda: VERSION)
        if path in HEALTH or path.startswith(tuple(f"{known}/" for known in HEALTH)):
            return whole(200, b"ok", "text/plain; charset=utf-8")
        if path == "/openapi/v2" and OPENAPI_V2_ASKED in request.headers.get("accept", ""):
            # Go cannot parse a media type with an "@": the real server answers with a dot in its place.
            return whole(200, OPENAPI_V2, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        if path.startswith("/openapi/v3"):
            return self._openapi(path)
        if path == "/":
            return self._encoded(
                path, lambda: {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}
            )
        parts = path.split("/")[1:]
        if parts[0] == "api" and len(parts) == 2:
            return self._resources(path, "", parts[1])
        if parts[0] == "apis" and len(parts) == 3:
            return self._resources(path, parts[1], parts[2])
        if parts[0] == "apis" and len(parts) == 2:
            return self._group(path, parts[1])
        return None

    def _encoded(self, key: str, make: Callable[[], JsonObject], content_type: str = "application/json") -> Response:
        body = self._cache.get(key)
        if body is None:
            body = self._cache[key] = encode(make())
        return whole(200, body, content_type)

    # -- roots

    def _root(self, path: str, accept: str) -> Response:
        if any(_is_aggregated(offer) for offer in accept.split(",")):
            core = path == "/api"
            return self._encoded(f"{path}+v2", lambda: self._aggregated(core), AGGREGATED)
        if path == "/api":
            return self._encoded(path, self._versions)
        return self._encoded(path, self._groups)

    def _versions(self) -> JsonObject:
        address = {"clientCIDR": "0.0.0.0/0", "serverAddress": ""}
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}

    def _aggregated(self, core: bool) -> JsonObject:
        items = []
        for group, versions in self._registry.groups().items():
            if core != (group == ""):
                continue
            listed = [
                {
                    "version": version,
                    "resources": [_aggregated_row(row) for row in self._registry.in_place(group, version)],
                    "freshness": "Current",
                }
                for version in versions
            ]
            items.append({"metadata": {"name": group} if group else {}, "versions": listed})
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}

    # -- legacy

    def _group_entry(self, group: str) -> JsonObject:
        versions = [{"groupVersion": f"{group}/{name}", "version": name} for name in self._registry.groups()[group]]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _groups(self) -> JsonObject:
        entries = [self._group_entry(group) for group in self._registry.groups() if group]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries}

    def _group(self, path: str, group: str) -> Response:
        if group not in self._registry.groups():
            raise failures.no_such_page()
        return self._encoded(path, lambda: {"kind": "APIGroup", "apiVersion": "v1", **self._group_entry(group)})

    def _resources(self, path: str, group: str, version: str) -> Response:
        rows = self._registry.in_place(group, version)
        if not rows:
            raise failures.no_such_path() if group in self._registry.groups() else failures.no_such_page()

        def listed() -> JsonObject:
            resources = [entry for row in rows for entry in _legacy_row(row)]
            group_version = f"{group}/{version}" if group else version
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": group_version,
                "resources": resources,
            }

        return self._encoded(path, listed)

    # -- OpenAPI

    def _openapi(self, path: str) -> Response:
        rest = path.removeprefix("/openapi/v3").strip("/")
        places = {
            _place(group, version): (group, version)
            for group, held in self._registry.groups().items()
            for version in held
        }
        if not rest:
            return self._encoded(
                path, lambda: openapi.index({place: self._custom(*at) for place, at in places.items()})
            )
        if rest not in places:
            raise failures.no_such_path()
        rows = self._registry.in_place(*places[rest])
        return self._encoded(path, lambda: openapi.document(rest, rows))

    def _custom(self, group: str, version: str) -> str:
        """The names of the schemas of a place's custom kinds."""
        return " ".join(row.type_name for row in self._registry.in_place(group, version))


def _place(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _is_aggregated(offer: str) -> bool:
    settings = {part.strip() for part in offer.split(";")}
    return {"g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"} <= settings


def _kind(row: Row, sub: Subresource | None) -> JsonObject:
    if sub is None or (sub.kind == row.kind and not sub.group):
        resource = row.resource
        return {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return {"group": sub.group, "version": sub.version or "v1", "kind": sub.kind}


def _verbs(row: Row) -> list[str]:
    return sorted(row.verbs) if row.custom is None else list(row.custom.verbs)


def _aggregated_row(row: Row) -> JsonObject:
    found: JsonObject = {
        "resource": row.resource.plural,
        "responseKind": _kind(row, None),
        "scope": "Namespaced" if row.resource.namespaced else "Cluster",
        "singularResource": row.singular,
        "verbs": _verbs(row),
    }
    if row.short_names:
        found["shortNames"] = list(row.short_names)
    if row.categories:
        found["categories"] = list(row.categories)
    if row.subresources:
        found["subresources"] = [
            {"subresource": sub.name, "responseKind": _kind(row, sub), "verbs": sorted(sub.verbs)}
            for sub in row.subresources
        ]
    return found


def _legacy_row(row: Row) -> list[JsonObject]:
    resource = row.resource
    main: JsonObject = {
        "name": resource.plural,
        "singularName": row.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _verbs(row),
    }
    if row.short_names:
        main["shortNames"] = list(row.short_names)
    if row.categories:
        main["categories"] = list(row.categories)
    if row.custom is not None:
        main["storageVersionHash"] = row.custom.storage_hash
    entries = [main]
    for sub in row.subresources:
        entry: JsonObject = {
            "name": f"{resource.plural}/{sub.name}",
            "singularName": "",
            "namespaced": resource.namespaced,
        }
        if sub.group:
            entry |= {"group": sub.group, "version": sub.version}
        entries.append({**entry, "kind": sub.kind, "verbs": sorted(sub.verbs)})
    return entries
