"""The kernel of the node we run on (its network namespace is ours), read by its own tools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from tidegate import vtime
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.model.endpoint import Endpoint
from tidegate.observers.kernel import KernelUnreachable, Reading
from tidegate.observers.linux import conntrack, gate, rules
from tidegate.observers.linux.commands import CommandFailed
from tidegate.observers.linux.generation import Generations
from tidegate.observers.linux.rules import Dumps, NotRead

POLL_SECONDS = 0.02
"""How soon a commit is seen. kube-proxy syncs once a second at most."""
LEGACY_SECONDS = 0.25
"""Rules without a generation are read again this often."""

Fences = Callable[[], Mapping[str, str] | None]
"""ClusterIP -> install id of every fence of the cluster; None while that is not known."""


class LinuxKernel:
    """``observers.kernel.Tables`` of a real node; safe for concurrent callers. Reads in threads, one at a time."""

    def __init__(self, node: str, address: str, fences: Fences, pod_networks: tuple[str, ...] = ()) -> None:
        self.node = node
        self.pod_networks = pod_networks
        self._address = address
        self._fences = fences
        self._generations = Generations()
        self._lock = threading.Lock()
        self._dumps: Dumps | None = None
        self._nft_generation = -1
        self._generation = 0
        self._fences_shown: Mapping[str, str] = {}
        self._gate = gate.Gate()

    async def read(self, endpoints: tuple[Endpoint, ...] | None) -> Reading:
        fences = self._fences()
        if fences is None:
            return self._nothing("the fence's Services are not known: the API server has not answered yet")
        return await asyncio.to_thread(self._read, endpoints, dict(fences))

    async def read_after(self, generation: int, seconds: float, endpoints: tuple[Endpoint, ...]) -> Reading:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        look_at = loop.time() + LEGACY_SECONDS
        while (left := until - loop.time()) > 0 and not self._is_newer(generation):
            await asyncio.sleep(min(POLL_SECONDS, left))
            if loop.time() >= look_at:
                if await asyncio.to_thread(rules.has_legacy):
                    found = await self.read(endpoints)
                    if found.generation != generation:
                        return found
                look_at = loop.time() + LEGACY_SECONDS
        return await self.read(endpoints)

    async def redirect(self, port: int, target: str) -> None:
        """Send what the node's own processes dial on ``port`` of any pod of it to ``target`` ("ip:port", ours). Put
        back when somebody took it away. Raises ``KernelUnreachable``."""
        if not self.pod_networks:
            raise KernelUnreachable(f"the pod networks of {self.node} are not known: set TIDEGATE_POD_NETWORKS")
        to_port = int(target.rpartition(":")[2])
        try:
            await asyncio.to_thread(self._gate.ensure, self._generations, self.pod_networks, port, to_port)
        except (CommandFailed, OSError) as error:
            raise KernelUnreachable(f"the gate's redirect: {error}") from error

    def close(self) -> None:
        self._generations.close()

    def _is_newer(self, generation: int) -> bool:
        """Whether a reading now would be of another generation than ``generation``; yes when that cannot be told."""
        if generation != self._generation or self._fences() != self._fences_shown:
            return True
        try:
            return self._generations.now() != self._nft_generation
        except OSError:
            return True

    def _read(self, endpoints: tuple[Endpoint, ...] | None, fences: dict[str, str]) -> Reading:
        """The rules first, the connections after: one that a rule of before made is then there to be seen."""
        with self._lock:
            at = vtime.now().timestamp()
            try:
                dumps, generation = self._current(fences)
            except (NotRead, OSError) as error:
                return self._nothing(str(error))
            facts = dumps.facts(endpoints, fences, self._address)
        tracked, unreadable = conntrack.read(endpoints)
        dump = f"{facts.dump}, generation {generation}"
        whole = replace(
            facts, source=self.node, dump=dump, at=at, tracked=tracked, unreadable=(*facts.unreadable, *unreadable)
        )
        return Reading(whole, generation)

    def _current(self, fences: dict[str, str]) -> tuple[Dumps, int]:
        """The dumps of now: those at hand where the generation says that nothing was committed since."""
        is_known = self._dumps is not None and fences == self._fences_shown and not rules.has_legacy()
        if self._dumps is not None and is_known and self._generations.now() == self._nft_generation:
            return self._dumps, self._generation
        dumps, nft_generation = rules.read(self._generations)
        if dumps != self._dumps or nft_generation != self._nft_generation or fences != self._fences_shown:
            self._dumps, self._nft_generation, self._fences_shown = dumps, nft_generation, fences
            self._generation += 1
        return self._dumps or dumps, self._generation

    def _nothing(self, why: str) -> Reading:
        return Reading(Facts(self.node, "no dump", unreadable=(Unreadable(why, self.node),)), 0)
