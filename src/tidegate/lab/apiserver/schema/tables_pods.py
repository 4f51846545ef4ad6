"""The table of pods: READY, STATUS and RESTARTS as printPod works them out (Kubernetes 1.36)."""

from __future__ import annotations

from datetime import datetime

from tidegate.lab.apiserver.schema.human import age, since
from tidegate.lab.apiserver.schema.tables_columns import NONE, Json, Printer, containers, dig, labels

_UNREACHABLE = "NodeLost"  # status.reason the node controller gives to pods of a lost node


class _Tally:
    """What the containers of one pod add up to, while they are gone through in printPod's order."""

    __slots__ = ("last_restart", "ready", "reason", "restarts", "total")

    def __init__(self, reason: str, total: int) -> None:
        self.reason = reason
        self.total = total
        self.ready = 0
        self.restarts = 0
        self.last_restart = ""

    def restart(self, status: Json) -> None:
        self.restarts += int(status.get("restartCount") or 0)
        self.last_restart = max(self.last_restart, _ended_before(status))


def _ended_before(status: Json) -> str:
    """When the container's previous run ended, "" if it had none; RFC 3339 in UTC sorts as text."""
    return str(dig(status, "lastState", "terminated", "finishedAt") or "")


def _exit(prefix: str, terminated: Json) -> str:
    if terminated.get("reason"):
        return f"{prefix}{terminated['reason']}"
    if terminated.get("signal"):
        return f"{prefix}Signal:{terminated['signal']}"
    return f"{prefix}ExitCode:{terminated.get('exitCode') or 0}"


def status_of(pod: Json) -> _Tally:
    """READY, STATUS and RESTARTS of a pod."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    sidecars = {
        container["name"]
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }
    tally = _Tally(_first_reason(status), len(spec.get("containers") or ()) + len(sidecars))
    sidecar_restarts = _Tally("", 0)
    is_initializing = _initialise(pod, sidecars, tally, sidecar_restarts)
    if not is_initializing or _condition(status, "Initialized") == "True":
        tally.restarts, tally.last_restart = sidecar_restarts.restarts, sidecar_restarts.last_restart
        _run(status, tally)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == _UNREACHABLE:
            tally.reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            tally.reason = "Terminating"
    return tally


def _first_reason(status: Json) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            return "SchedulingGated"
    return str(status.get("reason") or status.get("phase") or "")


def _initialise(pod: Json, sidecars: set[str], tally: _Tally, sidecar_restarts: _Tally) -> bool:
    """Go through the init containers; True when one of them is still the story."""
    total = len(pod["spec"].get("initContainers") or ())
    for index, status in enumerate(dig(pod, "status", "initContainerStatuses") or ()):
        state, is_sidecar = status.get("state") or {}, status.get("name") in sidecars
        tally.restart(status)
        if is_sidecar:
            sidecar_restarts.restart(status)
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if is_sidecar and status.get("started"):
            tally.ready += bool(status.get("ready"))
            continue
        if terminated is not None:
            tally.reason = _exit("Init:", terminated)
        elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
            tally.reason = f"Init:{waiting['reason']}"
        else:
            tally.reason = f"Init:{index}/{total}"
        return True
    return False


def _run(status: Json, tally: _Tally) -> None:
    """Go through the containers, last first: the first container's reason is the one that shows."""
    has_running = False
    for container in reversed(status.get("containerStatuses") or ()):
        tally.restart(container)
        state = container.get("state") or {}
        waiting, terminated = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            tally.reason = waiting["reason"]
        elif terminated is not None:
            tally.reason = _exit("", terminated)
        elif container.get("ready") and state.get("running") is not None:
            has_running = True
            tally.ready += 1
    if tally.reason == "Completed" and has_running:
        tally.reason = "Running" if _condition(status, "Ready") == "True" else "NotReady"


def _condition(status: Json, kind: str) -> str:
    found = (c.get("status") for c in status.get("conditions") or () if c.get("type") == kind)
    return str(next(found, None) or "")


def _gates(pod: Json) -> str:
    gates = dig(pod, "spec", "readinessGates") or []
    if not gates:
        return NONE
    status = pod.get("status") or {}
    met = sum(_condition(status, gate.get("conditionType", "")) == "True" for gate in gates)
    return f"{met}/{len(gates)}"


def _pod(pod: Json, now: datetime) -> list[object]:
    tally = status_of(pod)
    restarts = str(tally.restarts)
    if tally.restarts and tally.last_restart:
        restarts += f" ({since(tally.last_restart, now)} ago)"
    return [
        pod["metadata"]["name"],
        f"{tally.ready}/{tally.total}",
        tally.reason,
        restarts,
        age(pod, now),
        dig(pod, "status", "podIP") or NONE,
        dig(pod, "spec", "nodeName") or NONE,
        dig(pod, "status", "nominatedNodeName") or NONE,
        _gates(pod),
    ]


def _pod_conditions(pod: Json) -> list[Json]:
    """Why ``get --watch`` and ``--show-all`` may leave a row out."""
    phase = dig(pod, "status", "phase")
    if phase == "Succeeded":
        message = "The pod has completed successfully."
    elif phase == "Failed":
        message = "The pod failed."
    else:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": message}]


def _pod_template(obj: Json, now: datetime) -> list[object]:
    template = obj.get("template") or {}
    return [
        obj["metadata"]["name"],
        *containers(template.get("spec")),
        labels(dig(template, "metadata", "labels")),
    ]


PRINTERS = {
    "Pod": Printer("Name|Ready|Status|Restarts|Age|*IP|*Node|*Nominated Node|*Readiness Gates", _pod, _pod_conditions),
    "PodTemplate": Printer("Name|Containers|Images|Pod Labels", _pod_template),
}
