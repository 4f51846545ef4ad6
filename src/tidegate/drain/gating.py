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


GATE_TOKEN = "tidegate.dev/gate-token"
"""On pods that use their node's network: what the hook sends, for the node's address is no pod's."""
TOKEN_HEADER = "X-Tidegate-Gate"
LOOPBACK = "127.0.0.1"


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
    is_on_host: bool = False


def gate_patch(workload: Mapping[str, Any], fresh_token: str = "") -> GatePatch:
    """Of a Deployment, StatefulSet or DaemonSet as the API has it. ``fresh_token``: 32 hexadecimal digits, for pods
    that use their node's network and have none yet. Raises ``CannotBeGated``."""
    template = workload["spec"]["template"]
    spec = template["spec"]
    is_on_host = bool(spec.get("hostNetwork"))
    token = ""
    if is_on_host:
        told = ((template.get("metadata") or {}).get("annotations") or {}).get(GATE_TOKEN, "")
        token = told or fresh_token
        if not token:
            raise CannotBeGated(
                "its pods use their node's network: the node cannot tell from an address which pod is asking"
            )
        if not declares_port(spec):
            raise CannotBeGated("its pods use their node's network and declare no port: nothing tells their traffic")
    found = spec.get("terminationGracePeriodSeconds")
    grace = DEFAULT_GRACE_SECONDS if found is None else int(found)
    hooks = {one["name"]: (one.get("lifecycle") or {}).get("preStop") or {} for one in spec.get("containers") or ()}
    wanted = {name: hook for name, hook in hooks.items() if not is_gate(name, hook, token)}
    for name, hook in wanted.items():
        is_other_form = bool(token) and is_gate(name, hook)
        if hook and not is_plain_sleep(hook) and not is_other_form:
            raise CannotBeGated(
                f"container {name} has a preStop hook of its own, and a container can have one only: let what it does "
                "happen on SIGTERM, or keep it without a gate"
            )
    if not wanted and grace >= GRACE_SECONDS:
        return GatePatch({}, (), (), grace, is_on_host)
    containers = [{"name": name, "lifecycle": {"preStop": _hook(name, hook, token)}} for name, hook in wanted.items()]
    changed: dict[str, Any] = {"containers": containers} if containers else {}
    if grace < GRACE_SECONDS:
        changed = {"terminationGracePeriodSeconds": GRACE_SECONDS, **changed}
    patched: dict[str, Any] = {"spec": changed}
    if token:
        patched = {"metadata": {"annotations": {GATE_TOKEN: token}}, **patched}
    replaced = tuple(name for name, hook in wanted.items() if is_plain_sleep(hook))
    return GatePatch({"spec": {"template": patched}}, tuple(wanted), replaced, max(grace, GRACE_SECONDS), is_on_host)


def declares_port(spec: Mapping[str, Any]) -> bool:
    """Whether a container of a pod names a port: on its node's network nothing else tells the pod's traffic."""
    return any(port.get("containerPort") for one in spec.get("containers") or () for port in one.get("ports") or ())


def is_gate(container: str, hook: Mapping[str, Any], token: str = "") -> bool:
    """Whether a preStop hook is the gate of ``container``; with ``token``, of a pod on its node's network."""
    call = hook.get("httpGet") or {}
    if call.get("path") != GATE_PATH + container or str(call.get("port")) != str(GATE_PORT):
        return False
    if not token:
        return not call.get("host")
    headers = {str(one.get("name")).lower(): one.get("value") for one in call.get("httpHeaders") or ()}
    return call.get("host") == LOOPBACK and headers.get(TOKEN_HEADER.lower()) == token


def is_plain_sleep(hook: Mapping[str, Any]) -> bool:
    """Whether a hook only waits: then the gate does what it was for."""
    if hook.get("sleep"):
        return True
    command: list[str] = (hook.get("exec") or {}).get("command") or []
    if len(command) == 3 and _SHELLS.fullmatch(command[0]) and command[1] == "-c":
        return _SLEEP.fullmatch(command[2]) is not None
    return len(command) == 2 and _SLEEP.fullmatch(" ".join(command)) is not None


def _hook(container: str, before: Mapping[str, Any], token: str) -> dict[str, Any]:
    """A strategic merge keeps what it does not name, and a hook may have one handler: the one before is named null."""
    gone = {handler: None for handler in _HANDLERS if handler != "httpGet" and before.get(handler)}
    return {**gate_hook(container, token), **gone}


def gate_hook(container: str, token: str = "") -> dict[str, Any]:
    """The preStop hook that is the gate of ``container``; with ``token``, of a pod on its node's network."""
    call: dict[str, Any] = {"path": GATE_PATH + container, "port": GATE_PORT}
    if token:
        call |= {"host": LOOPBACK, "httpHeaders": [{"name": TOKEN_HEADER, "value": token}]}
    return {"httpGet": call}
