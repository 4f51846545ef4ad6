"""What is known of one container, frozen: the status is a pure function of these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from tidegate.lab.instants import stamp

Role = Literal["init", "sidecar", "main"]
"""``sidecar`` = an init container with restartPolicy Always (GA 1.33)."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not running yet, or not again yet."""

    reason: str = "PodInitializing"
    message: str = ""

    def render(self) -> dict[str, Any]:
        body = {"reason": self.reason}
        if self.message:
            body["message"] = self.message
        return {"waiting": body}


@dataclass(frozen=True, slots=True)
class Running:
    """The first process lives."""

    started_at: datetime

    def render(self) -> dict[str, Any]:
        return {"running": {"startedAt": stamp(self.started_at)}}


@dataclass(frozen=True, slots=True)
class Terminated:
    """It ended. ``exit_code`` 0-255, 128 + signal when a signal ended it."""

    exit_code: int
    reason: str
    started_at: datetime | None
    finished_at: datetime
    container_id: str = ""
    message: str = ""

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0

    def render(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "exitCode": self.exit_code,
            "reason": self.reason,
            "startedAt": stamp(self.started_at) if self.started_at else None,
            "finishedAt": stamp(self.finished_at),
        }
        if self.container_id:
            body["containerID"] = self.container_id
        if self.message:
            body["message"] = self.message
        return {"terminated": body}


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """One container as the kubelet knows it. ``started``: its startup probe passed, or it has none."""

    name: str
    image: str
    role: Role = "main"
    state: State = Waiting()
    last_state: Terminated | None = None
    restart_count: int = 0
    container_id: str = ""
    started: bool = False
    ready: bool = False

    @property
    def is_running(self) -> bool:
        return isinstance(self.state, Running)

    def render(self) -> dict[str, Any]:
        """Its entry in containerStatuses (or initContainerStatuses)."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": f"sha256:{sha256(self.image.encode()).hexdigest()}" if self.container_id else "",
            **({"containerID": self.container_id} if self.container_id else {}),
            "state": self.state.render(),
            "lastState": self.last_state.render() if self.last_state else {},
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restart_count,
        }
