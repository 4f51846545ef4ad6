"""Validation every object gets: its name, labels, annotations, owners, finalizers, and what may not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.lab.apiserver.schema import causes, names
from tidegate.lab.apiserver.schema.causes import Cause

Json = Mapping[str, Any]
_ANNOTATIONS_MAX = 256 * 1024
STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def validate(kind: str, metadata: Json, *, has_free_finalizers: bool = False) -> list[Cause]:
    """``metadata`` of an object (apimachinery/pkg/api/validation/objectmeta.go).

    Custom kinds take the general rules; their finalizers may be called without a domain (``has_free_finalizers``).
    """
    found: list[Cause] = []
    check = names.rule_for(kind)
    prefix = str(metadata.get("generateName") or "")
    if prefix:  # a trailing dash is fine: five letters follow it
        found += [causes.invalid("metadata.generateName", prefix, text) for text in check(prefix.rstrip("-") + "a")]
    name = str(metadata.get("name") or "")
    if not name:
        found.append(causes.required("metadata.name", "name or generateName is required"))
    else:
        found += [causes.invalid("metadata.name", name, text) for text in check(name)]
    found += label_set(metadata.get("labels"), "metadata.labels")
    found += annotation_set(metadata.get("annotations"), "metadata.annotations")
    found += _owners(metadata.get("ownerReferences") or ())
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        path = f"metadata.finalizers[{index}]"
        found += _finalizer(str(finalizer), path, has_free_names=has_free_finalizers)
    return found


def label_set(found: Json | None, field: str) -> list[Cause]:
    """Label keys and values."""
    problems: list[Cause] = []
    for key, value in sorted((found or {}).items()):
        problems += [causes.invalid(field, key, text) for text in names.qualified_name(key)]
        problems += [causes.invalid(field, value, text) for text in names.label_value(str(value))]
    return problems


def annotation_set(found: Json | None, field: str) -> list[Cause]:
    """Annotation keys, and 256 KiB for all of them."""
    problems: list[Cause] = []
    size = 0
    for key, value in (found or {}).items():
        problems += [causes.invalid(field, key, text) for text in names.qualified_name(key.lower())]
        size += len(key) + len(str(value))
    return [*problems, causes.too_long(field, _ANNOTATIONS_MAX)] if size > _ANNOTATIONS_MAX else problems


def _owners(references: Any) -> list[Cause]:
    found: list[Cause] = []
    controller = ""
    for reference in references:
        path = "metadata.ownerReferences"
        for key, text in (
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ):
            if not reference.get(key):
                found.append(causes.invalid(f"{path}.{key}", reference.get(key) or "", text))
        if reference.get("controller"):
            name = f"{reference.get('kind')}/{reference.get('name')}"
            if controller:
                text = "Only one reference can have Controller set to true."
                text += f' Found "true" in references for {controller} and {name}'
                found.append(causes.invalid(path, list(references), text))
            controller = controller or name
    return found


def _finalizer(value: str, field: str, *, has_free_names: bool) -> list[Cause]:
    found = [causes.invalid(field, value, text) for text in names.qualified_name(value)]
    if not found and not has_free_names and "/" not in value and value not in STANDARD_FINALIZERS:
        text = "name is neither a standard finalizer name nor is it fully qualified"
        found.append(causes.invalid(field, value, text))
    return found


def validate_update(metadata: Json, old: Json) -> list[Cause]:
    """What an update may not do to ``metadata``."""
    found: list[Cause] = []
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        if old.get(key) is not None:
            found += causes.unchanged(f"metadata.{key}", metadata.get(key), old.get(key))
    if old.get("deletionTimestamp"):
        added = sorted(set(metadata.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            text = "no new finalizers can be added if the object is being deleted, found new finalizers "
            found.append(causes.forbidden("metadata.finalizers", text + "[]string{" + listed + "}"))
    return found
