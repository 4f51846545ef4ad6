"""URL paths: which resource, object and subresource a request means."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.registry import Registry, Row


@dataclass(frozen=True, slots=True)
class Route:
    """One resource path. ``tail`` is what follows a proxy subresource, with its leading slash."""

    row: Row
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    tail: str = ""

    @property
    def place(self) -> tuple[str, str]:
        return self.namespace, self.name


def parse(registry: Registry, path: str) -> Route:
    """The route of a resource path; trailing slashes are tolerated (kr8s sends them). 404 when nothing is there."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 1:
        group, head = "", 1
    elif parts[0] == "apis" and len(parts) > 2:
        group, head = parts[1], 2
    else:
        raise failures.no_such_page()
    rows = registry.place(group, parts[head]) if len(parts) > head else None
    rest = parts[head + 1 :]
    if rows is None or not rest:
        is_known = group in registry.groups()
        raise failures.no_such_path() if is_known else failures.no_such_page()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and (rest[2] in rows or rest[2] not in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    row = rows.get(rest[0])
    if row is None or (namespace and not row.resource.namespaced):
        raise failures.no_such_path()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    tail = ""
    if len(rest) > 3 or (subresource == "proxy" and path.endswith("/")):
        if subresource != "proxy":
            raise failures.no_such_path()
        tail = path.split(f"/{rest[0]}/{name}/proxy", 1)[1]
    if subresource and row.subresource(subresource) is None:
        raise failures.no_such_path()
    return Route(row, namespace, name, subresource, tail)
