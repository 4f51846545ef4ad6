"""What the sequences run on: an API, nodes whose proxies can be hurt, and every table they ever had.

Virtual time is one ground; a kernel network and a real kube-proxy can be others: they sample tables, and a table that
was not seen says nothing for or against.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from tidegate.kube.api import Api
from tidegate.lab.faults import Fault, FaultKind
from tidegate.lab.kernel.client import control_path
from tidegate.lab.virtual import VirtualLab
from tidegate.model.epoch import Epoch, earliest
from tidegate.model.names import SYSTEM_NAMESPACE, fence_name
from tidegate.observers.kernel import LabKernel, LabTables, Tables
from tidegate.rehearse.fence.judge import Node, Sight, number_of

WAIT_SECONDS = 5.0


class Ground(Protocol):
    """Where sequences are played."""

    @property
    def api(self) -> Api: ...

    @property
    def nodes(self) -> Sequence[str]: ...

    def address(self, number: int) -> str:
        """An endpoint's address of its own ("ip"): nobody needs to answer there."""
        ...

    def hurt(self, kind: FaultKind, node: str, seconds: float) -> None:
        """Do it to the node's proxy; ``clear`` ends all of it."""
        ...

    async def shown(self, node: str, epoch: Epoch) -> None:
        """Return once the node's own dump shows ``epoch``, read as an agent reads it."""
        ...

    def seen(self) -> Sequence[Node]:
        """Every table of every node so far, from outside."""
        ...


class VirtualGround:
    """A virtual lab without agents. Its kernels' journal has every table: nothing is missed between two looks."""

    def __init__(self, lab: VirtualLab, install: str) -> None:
        self._lab = lab
        self._install = install
        self._tables: dict[str, Tables] = {}
        self._latest: dict[str, Epoch] = {}
        self._changed = asyncio.Event()

    @property
    def api(self) -> Api:
        return self._lab.api

    @property
    def nodes(self) -> Sequence[str]:
        return self._lab.config.node_names

    def address(self, number: int) -> str:
        return f"{self._lab.config.addressing.pod_prefix(200)}.{number + 1}"

    def hurt(self, kind: FaultKind, node: str, seconds: float) -> None:
        self._lab.lab.faults.apply(Fault(kind, node, seconds))

    async def follow(self) -> None:
        """Read the nodes' dumps for ever, as their agents would."""
        path = str(control_path(self._lab.lab.ground.kernel_folder))
        await asyncio.gather(*(self._follow(node, LabTables(LabKernel(path, node), node)) for node in self.nodes))

    async def _follow(self, node: str, tables: Tables) -> None:
        generation = -1
        while True:
            found = await tables.read_after(generation, WAIT_SECONDS, ())
            generation = found.generation
            mine = tuple(one for one in found.facts.fence if one.install == self._install)
            if mine and not found.facts.unreadable:
                self._latest[node] = earliest(mine)
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()

    async def shown(self, node: str, epoch: Epoch) -> None:
        while (latest := self._latest.get(node)) is None or not latest.reaches(epoch):
            await self._changed.wait()

    def seen(self) -> Sequence[Node]:
        nodes = {name: Node() for name in self.nodes}
        fence = f"{SYSTEM_NAMESPACE}/{fence_name(self._install)}:"
        for entry in self._lab.journal():
            if entry["event"] == "proxy-synced":
                nodes[str(entry["node"])].synced.append(float(str(entry["at"])))
            elif entry["event"] == "table-committed":
                services = entry["services"]
                assert isinstance(services, dict)
                shown = tuple(number_of(to) for key in services if key.startswith(fence) for to in services[key])
                routed = frozenset(to for key, all_ in services.items() if not key.startswith(fence) for to in all_)
                nodes[str(entry["node"])].sights.append(Sight(float(str(entry["at"])), shown, routed))
        return tuple(nodes.values())
