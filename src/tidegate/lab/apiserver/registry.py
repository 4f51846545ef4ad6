"""The resources the server serves: one row per kind, everything else is generic.

A row says where a kind lives, what it is called, which verbs, subresources and field selectors it has, and
which ``Strategy`` holds the few lines of code that are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidegate.kube.api import JsonObject, Resource
from tidegate.lab.apiserver.selectors import FieldPath
from tidegate.lab.apiserver.strategy import Strategy

if TYPE_CHECKING:
    from tidegate.lab.apiserver.custom.kinds import CustomKind

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
REVIEW = ("create",)


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource as discovery lists it. ``kind``, ``group``, ``version`` name the body it takes."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a row that shares another row's store differs from what is stored (both directions make new dicts)."""

    to_storage: Callable[[JsonObject], JsonObject]
    from_storage: Callable[[JsonObject], JsonObject]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One kind. Compared by identity; ``storage`` names the row whose store it shares (itself when None)."""

    resource: Resource
    strategy: Strategy = field(default_factory=Strategy)
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    subresources: tuple[Subresource, ...] = ()
    field_labels: Mapping[str, FieldPath] = field(default_factory=dict)
    returns_deleted: bool = False
    storage: Row | None = None
    conversion: Conversion | None = None
    type_name: str = ""
    deprecation: str = ""
    """Said in a Warning header with every answer."""
    custom: CustomKind | None = None
    """What a CustomResourceDefinition says about this kind; None for built-in ones."""

    @property
    def kind(self) -> str:
        return self.resource.kind

    @property
    def singular(self) -> str:
        return self.custom.singular if self.custom is not None else self.resource.kind.lower()

    @property
    def list_kind(self) -> str:
        return self.custom.list_kind if self.custom is not None else f"{self.resource.kind}List"

    @property
    def qualified(self) -> str:
        """``deployments.apps``, or ``pods`` in the core group: how messages name a resource."""
        return f"{self.resource.plural}.{self.resource.group}" if self.resource.group else self.resource.plural

    @property
    def stored(self) -> Row:
        return self.storage or self

    def subresource(self, name: str) -> Subresource | None:
        return next((sub for sub in self.subresources if sub.name == name), None)


class Registry:
    """Rows by group, version and plural, in the order discovery lists them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: list[Row] = []
        self.revision = 0
        """Grows with every change of what is served, for those who keep what they made of it."""
        self._places: dict[tuple[str, str], dict[str, Row]] = {}
        self._resources: dict[tuple[str, str], Row] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        resource = row.resource
        self.revision += 1
        self.rows.append(row)
        self._places.setdefault((resource.group, resource.version), {})[resource.plural] = row
        self._resources.setdefault((resource.group, resource.plural), row)

    def replace_custom(self, group: str, rows: Iterable[Row]) -> None:
        """Serve these custom kinds of a group, in this order, and no others."""
        kept = [row for row in self.rows if row.custom is None or row.resource.group != group]
        self.revision += 1
        self.rows, self._places, self._resources = [], {}, {}
        for row in (*kept, *rows):
            self.add(row)

    def place(self, group: str, version: str) -> dict[str, Row] | None:
        """The rows of one group and version by plural; None when it is not served."""
        return self._places.get((group, version))

    def row(self, resource: Resource) -> Row | None:
        """The row of a client's ``Resource`` (exact version)."""
        rows = self._places.get((resource.group, resource.version))
        return rows.get(resource.plural) if rows else None

    def named(self, group: str, plural: str) -> Row:
        """A row the server itself needs; KeyError when it was not registered."""
        return self._resources[group, plural]

    def groups(self) -> dict[str, list[str]]:
        """Versions of each group, the core group ("") first, in order of registration."""
        found: dict[str, list[str]] = {}
        for group, version in self._places:
            found.setdefault(group, []).append(version)
        return found

    def in_place(self, group: str, version: str) -> list[Row]:
        return list(self._places.get((group, version), {}).values())
