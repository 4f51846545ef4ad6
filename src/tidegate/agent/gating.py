"""The gate put into a workload's template: the patch that does it, or why it cannot be done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.model.names import GATE_PATH, GATE_PORT

GRACE_SECONDS = 60
"""The gate may then hold for 48 s: 10 s are the app's, 2 s the kubelet's (docs/operating.md)."""
DEFAULT_GRACE_SECONDS = 30
_SLEEP = re.compile(r"\s*(?:exec\s+)?(?:/usr)?(?:/bin/)?sleep\s+\d+(?:\.\d+)?s?\s*;?\s*")
_SHELLS = re.compile(r"(?:/usr)?(?:/bin/)?(?:sh|bash|ash|dash)")
_HANDLERS = ("exec", "httpGet", "sleep", "tcpSocket")


class CannotBeGated(ValueError):
    """Says why."""


@dataclass(frozen=True, slots=True)
class GatePatch:
    """A strategic merge patch of the workload. ``gated``: containers that get the hook; ``replaced``: of these, those
    whose plain sleep it takes the place of; ``patch`` is empty where nothing is to be changed."""

    patch: dict[str, Any]
    gated: tuple[str, ...]
    replaced: tuple[str, ...]
    grace_seconds: int


def gate_patch(workload: Mapping[str, Any]) -> GatePatch:
    """Of a Deployment, StatefulSet or DaemonSet as the API has it. Raises ``CannotBeGated``."""
    spec = workload["spec"]["template"]["spec"]
    if spec.get("hostNetwork"):
        raise CannotBeGated(
            "its pods use their node's network: the node cannot tell from an address which pod is asking"
        )
    found = spec.get("terminationGracePeriodSeconds")
    grace = DEFAULT_GRACE_SECONDS if found is None else int(found)
    hooks = {one["name"]: (one.get("lifecycle") or {}).get("preStop") or {} for one in spec.get("containers") or ()}
    wanted = {name: hook for name, hook in hooks.items() if not is_gate(name, hook)}
    for name, hook in wanted.items():
        if hook and not is_plain_sleep(hook):
            raise CannotBeGated(
                f"container {name} has a preStop hook of its own, and a container can have one only: let what it does "
                "happen on SIGTERM, or keep it without a gate"
            )
    if not wanted and grace >= GRACE_SECONDS:
        return GatePatch({}, (), (), grace)
    containers = [{"name": name, "lifecycle": {"preStop": _hook(name, hook)}} for name, hook in wanted.items()]
    changed: dict[str, Any] = {"containers": containers} if containers else {}
    if grace < GRACE_SECONDS:
        changed = {"terminationGracePeriodSeconds": GRACE_SECONDS, **changed}
    patch = {"spec": {"template": {"spec": changed}}}
    return GatePatch(
        patch, tuple(wanted), tuple(name for name, hook in wanted.items() if hook), max(grace, GRACE_SECONDS)
    )


def is_gate(container: str, hook: Mapping[str, Any]) -> bool:
    """Whether a preStop hook is the gate of ``container``."""
    call = hook.get("httpGet") or {}
    return (
        call.get("path") == GATE_PATH + container and str(call.get("port")) == str(GATE_PORT) and not call.get("host")
    )


def is_plain_sleep(hook: Mapping[str, Any]) -> bool:
    """Whether a hook only waits: then the gate does what it was for."""
    if hook.get("sleep"):
        return True
    command: list[str] = (hook.get("exec") or {}).get("command") or []
    if len(command) == 3 and _SHELLS.fullmatch(command[0]) and command[1] == "-c":
        return _SLEEP.fullmatch(command[2]) is not None
    return len(command) == 2 and _SLEEP.fullmatch(" ".join(command)) is not None


def _hook(container: str, before: Mapping[str, Any]) -> dict[str, Any]:
    """A strategic merge keeps what it does not name, and a hook may have one handler: the one before is named null."""
    gone = {handler: None for handler in _HANDLERS if handler != "httpGet" and before.get(handler)}
    return {"httpGet": {"path": GATE_PATH + container, "port": GATE_PORT}, **gone}
