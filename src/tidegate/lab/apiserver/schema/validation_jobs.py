"""Validation of batch/v1 Jobs: spec, generated selector, and what a status may say (pkg/apis/batch/validation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.lab.apiserver.schema import causes, validation_pod, validation_selectors
from tidegate.lab.apiserver.schema.causes import Cause, invalid, non_negative, required

Json = Mapping[str, Any]
_PREFIX = "batch.kubernetes.io/"
_IMMUTABLE = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")


def job(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    found = _selected(obj, spec) + job_spec(spec, "spec")
    if old is None:
        return found
    if spec.get("completionMode") != "Indexed":
        found += causes.unchanged("spec.completions", spec.get("completions"), old["spec"].get("completions"))
    elif spec.get("completions") not in (old["spec"].get("completions"), spec.get("parallelism")):
        text = "can only be modified in tandem with spec.parallelism"
        found.append(invalid("spec.completions", spec.get("completions"), text))
    found += causes.unchanged("spec.selector", spec.get("selector"), old["spec"].get("selector"))
    if not old["spec"].get("suspend"):
        found += causes.unchanged("spec.template", spec.get("template"), old["spec"].get("template"))
    for key in _IMMUTABLE:
        found += causes.unchanged(f"spec.{key}", spec.get(key), old["spec"].get(key))
    return found + _status(obj.get("status") or {}, old.get("status") or {})


def job_spec(spec: Json, path: str) -> list[Cause]:
    """The spec of a Job or of a CronJob's template."""
    found: list[Cause] = []
    for key in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        found += non_negative(f"{path}.{key}", spec.get(key))
    mode = spec.get("completionMode")
    found += causes.one_of(f"{path}.completionMode", mode, ("NonIndexed", "Indexed"))
    if mode == "Indexed" and spec.get("completions") is None:
        found.append(required(f"{path}.completions", "when completion mode is Indexed"))
    found += validation_pod.template(spec.get("template"), f"{path}.template")
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    field = f"{path}.template.spec.restartPolicy"
    if policy in ("Always", "", None):
        found.append(required(field, 'valid values: "OnFailure", "Never"'))
    elif policy != "Never" and spec.get("podFailurePolicy") is not None:
        text = 'only "Never" is supported when podFailurePolicy is specified'
        found.append(invalid(field, policy, text))
    return found


def _selected(obj: Json, spec: Json) -> list[Cause]:
    """validateGeneratedSelector: what the server puts on template and selector must not be written by hand."""
    if spec.get("manualSelector") or spec.get("selector") is None:
        return []
    metadata = obj.get("metadata") or {}
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    path, found, expected = "spec.template.metadata.labels", [], {}
    for prefix in ("", _PREFIX):
        for key, value in (("controller-uid", metadata.get("uid")), ("job-name", metadata.get("name"))):
            expected[prefix + key] = str(value)
            if labels.get(prefix + key) != value:
                found.append(_mislabelled(path, prefix + key, str(value), labels))
    if not validation_selectors.matches(spec["selector"], expected):
        found.append(invalid("spec.selector", spec["selector"], "`selector` not auto-generated"))
    return found


def _mislabelled(path: str, key: str, value: str, labels: Json) -> Cause:
    """ValidateHasLabel."""
    if key not in labels:
        return required(f"{path}[{key}]", f"must be '{value}'")
    return invalid(f"{path}[{key}]", dict(sorted(labels.items())), f"must be '{value}'")


def _is_met(status: Json, kind: str) -> bool:
    return any((one["type"], one["status"]) == (kind, "True") for one in status.get("conditions") or ())


def _status(status: Json, old: Json) -> list[Cause]:
    """What a controller may not write: the part of JobStatusValidationOptions that its own slips meet."""
    found: list[Cause] = []
    active, ready = int(status.get("active") or 0), int(status.get("ready") or 0)
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        found += non_negative(f"status.{key}", status.get(key))
    if ready > active and (active, ready) != (int(old.get("active") or 0), int(old.get("ready") or 0)):
        found.append(invalid("status.ready", ready, "cannot set more ready pods than active"))
    is_over = _is_met(status, "Complete") or _is_met(status, "Failed")
    if is_over and active and status != old:
        found.append(invalid("status.active", active, "active>0 is invalid for finished job"))
    if is_over and status.get("terminating") and status != old:
        found.append(invalid("status.terminating", status["terminating"], "terminating>0 is invalid for finished job"))
    return found
