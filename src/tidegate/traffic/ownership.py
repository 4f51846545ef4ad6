"""Who else claims an object's fields: a GitOps manager would put back what we change, sooner or later.

Two kinds of evidence, both on the object itself: the marks its manager leaves (annotations, labels), and
``metadata.managedFields`` where server-side apply or an update named its manager beside the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]
"""A field: ``("spec", "template", "metadata", "labels")``."""

_MARKS: tuple[tuple[str, str, str], ...] = (
    ("argocd.argoproj.io/tracking-id", "", "Argo CD"),
    ("argocd.argoproj.io/instance", "", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "", "Flux"),
    ("meta.helm.sh/release-name", "", "Helm"),
    ("app.kubernetes.io/managed-by", "Helm", "Helm"),
)
"""(annotation or label, its value or "" for any, who leaves it)."""

_MANAGERS: dict[str, str] = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "helm": "Helm",
}
"""Field managers by the names they give themselves."""


@dataclass(frozen=True, slots=True)
class Claim:
    """``manager`` (Argo CD, Flux, Helm) claims the object or a field of it; ``evidence`` is where that is written."""

    manager: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.manager} manages it ({self.evidence})"


def claim_on(obj: Mapping[str, Any], paths: Iterable[Path]) -> Claim | None:
    """Who, as far as ``obj`` (JSON) tells, would put back a change at one of ``paths``; None where nobody would.

    A mark claims the whole object; a field manager claims what it set: a path, what is in it, or what it is in.
    """
    metadata = obj.get("metadata") or {}
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    for key, value, manager in _MARKS:
        if key in marks and value in ("", marks[key]):
            return Claim(manager, f"{key}: {marks[key]}")
    wanted = tuple(paths)
    for entry in metadata.get("managedFields") or ():
        known = _MANAGERS.get(str(entry.get("manager")))
        if known is None or entry.get("subresource"):
            continue
        for path in wanted:
            if _has(entry.get("fieldsV1") or {}, path):
                return Claim(known, f"field manager {entry['manager']} has {'.'.join(path)}")
    return None


def _has(fields: Mapping[str, Any], path: Path) -> bool:
    """Whether fieldsV1 names ``path``, or ends on the way as an atomic parent does (an empty set is a leaf)."""
    for part in path:
        found = fields.get(f"f:{part}")
        if not isinstance(found, Mapping):
            return False
        if not found:
            return True
        fields = found
    return True
