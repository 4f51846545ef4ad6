"""The kernel of the node we run on (its network namespace is ours): rules, tracked connections, what stirs them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from tidegate import vtime
from tidegate.dataplane.facts import Facts, Tracked, Unreadable
from tidegate.dataplane.netlink import Malformed
from tidegate.model.endpoint import Endpoint
from tidegate.observers.kernel import KernelUnreachable, Reading
from tidegate.observers.linux import conntrack, gate, rules
from tidegate.observers.linux.commands import CommandFailed
from tidegate.observers.linux.following import Followed, NotRead
from tidegate.observers.linux.generation import ABSENT, Generations
from tidegate.observers.linux.idleflows import IdleFlows
from tidegate.observers.linux.rules import Beside, Wanted

LOOK_SECONDS = 0.25
"""Rules without a generation are looked at this often, and which Services are fences."""
REMEMBERED_MAX = 16
RETRY_SECONDS = 0.02
READERS = 2
"""Threads: each keeps what it once had of memory for itself, and one reads rules at a time."""
ANSWER_SECONDS = 3.0
READING = f"the rules are still being read, since more than {ANSWER_SECONDS:.0f} s"
"""Who asks learns it by name, and again later: to read 10,000 Services whole takes longer than anybody waits. It says
no more, for an answer that is another each time is news each time."""

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
        self._followed = Followed(self._generations)
        self._state: tuple[int, Beside, Mapping[str, str]] | None = None
        self._generation = 0
        self._remembered: dict[tuple[Endpoint, ...] | None, Facts] = {}
        self._gate = gate.Gate()
        self._idle = IdleFlows()
        self._waiting: list[asyncio.Future[None]] = []
        self._watched = -1
        self._under_way: asyncio.Future[Reading] | None = None
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="kernel")
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="connections")

    async def read(self, endpoints: tuple[Endpoint, ...] | None) -> Reading:
        fences = self._fences()
        if fences is None:
            return self._nothing("the fence's Services are not known: the API server has not answered yet")
        return await self._in_time(endpoints, dict(fences))

    async def _in_time(self, endpoints: tuple[Endpoint, ...] | None, fences: dict[str, str]) -> Reading:
        """What is read, or that reading takes longer. It goes on then, and the next question finds it done."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ANSWER_SECONDS
        before = self._under_way
        if before is not None and not before.done() and not (await asyncio.wait([before], timeout=ANSWER_SECONDS))[0]:
            return self._nothing(READING)
        reading = loop.run_in_executor(self._threads, self._read, endpoints, fences)
        self._under_way = reading
        done, _ = await asyncio.wait([reading], timeout=max(0.0, until - loop.time()))
        return reading.result() if done else self._nothing(READING)

    async def read_after(self, generation: int, seconds: float, endpoints: tuple[Endpoint, ...]) -> Reading:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 and not self._is_newer(generation):
            if not await self._stirred(min(LOOK_SECONDS, left)) and rules.has_legacy():
                found = await self.read(endpoints)
                if found.generation != generation:
                    return found
        return await self.read(endpoints)

    async def _stirred(self, seconds: float) -> bool:
        """Wait for a commit, or so long; whether there was one."""
        if self._followed.fileno() < 0:
            await asyncio.sleep(min(seconds, RETRY_SECONDS))
            return False
        loop = asyncio.get_running_loop()
        stirred = loop.create_future()
        self._waiting.append(stirred)
        if len(self._waiting) == 1:
            self._watched = os.dup(self._followed.fileno())
            loop.add_reader(self._watched, self._wake)
        try:
            async with asyncio.timeout(seconds):
                await stirred
        except TimeoutError:
            return False
        finally:
            if stirred in self._waiting:
                self._waiting.remove(stirred)
                self._unwatch()
        if self._is_told():
            return True
        await loop.run_in_executor(self._threads, self._hear)  # no commit: what was told must not wake us again
        return False

    def _wake(self) -> None:
        for one in self._waiting:
            if not one.done():
                one.set_result(None)
        self._waiting.clear()
        self._unwatch()

    def _unwatch(self) -> None:
        if not self._waiting and self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1

    def _hear(self) -> None:
        with self._lock:
            self._followed.hear()

    async def redirect(self, port: int, target: str) -> None:
        """Send what the node's own processes dial on ``port`` of any pod of it to ``target`` ("ip:port", ours). Put
        back when somebody took it away. Raises ``KernelUnreachable``."""
        if not self.pod_networks:
            raise KernelUnreachable(f"the pod networks of {self.node} are not known: set TIDEGATE_POD_NETWORKS")
        to_port = int(target.rpartition(":")[2])
        try:
            await asyncio.to_thread(self._gate.ensure, self._generations, self.pod_networks, port, to_port)
            await asyncio.to_thread(self._follow)
        except (CommandFailed, OSError) as error:
            raise KernelUnreachable(f"the gate's redirect: {error}") from error

    async def forget(self, flows: tuple[Tracked, ...]) -> int:
        """Forget exactly these UDP flows; how many were still there. Raises ``KernelUnreachable``."""
        try:
            return await asyncio.to_thread(conntrack.forget, flows)
        except (OSError, Malformed) as error:
            raise KernelUnreachable(f"tracked connections: {error}") from error

    def _follow(self) -> None:
        """Keep what is known of the rules current while nobody asks: the first question is the urgent one."""
        with self._lock, suppress(NotRead):
            self._followed.catch_up()

    def close(self) -> None:
        with self._lock:
            self._followed.close()
        self._generations.close()
        self._threads.shutdown(wait=False)
        self._beside.shutdown(wait=False)

    def _is_newer(self, generation: int) -> bool:
        """Whether a reading now would be of another generation than ``generation``; yes when that cannot be told."""
        if generation != self._generation or self._state is None or self._fences() != self._state[2]:
            return True
        return self._is_told()

    def _is_told(self) -> bool:
        """Whether there was a commit since the last reading."""
        try:
            return self._state is None or self._generations.now() != self._state[0]
        except OSError:
            return True

    def _read(self, endpoints: tuple[Endpoint, ...] | None, fences: dict[str, str]) -> Reading:
        """The rules first, the connections after: one that a rule of before made is then there to be seen."""
        with self._lock:
            at = vtime.now().timestamp()
            try:
                early = self._begun_early(endpoints)
                facts = self._current(Wanted(endpoints, fences, self._address))
            except (NotRead, OSError) as error:
                return self._nothing(str(error))
            generation = self._generation
            shown = self._state[:2] if self._state is not None else None
        if early is not None and shown == (early[0], Beside()):
            tracked, unreadable = early[1].result()
        else:
            tracked, unreadable = conntrack.read(endpoints, self._idle)
        dump = f"{facts.dump}, generation {generation}"
        whole = replace(
            facts, source=self.node, dump=dump, at=at, tracked=tracked, unreadable=(*facts.unreadable, *unreadable)
        )
        return Reading(whole, generation)

    def _begun_early(self, endpoints: tuple[Endpoint, ...] | None) -> tuple[int, Future[conntrack.Connections]] | None:
        """A reading of connections, which takes as long as one of the rules, begun beside it, and the generation of
        nftables whose commit had ended before. It counts if the rules turn out to be of that generation, and if none
        have no generation: then no packet has met any of before since it began."""
        told = ABSENT if endpoints is None else self._followed.told()
        return None if told == ABSENT else (told, self._beside.submit(conntrack.read, endpoints, self._idle))

    def _current(self, wanted: Wanted) -> Facts:
        """What the rules of now show: what is known already, where nothing was committed since."""
        is_known = self._state is not None and wanted.fences == self._state[2] and not rules.has_legacy()
        if is_known and not self._is_told() and wanted.endpoints in self._remembered:
            return self._remembered[wanted.endpoints]
        facts, generation, beside = rules.read(self._followed, wanted)
        state = (generation, beside, wanted.fences)
        if state != self._state:
            self._state = state
            self._generation += 1
            self._remembered.clear()
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[wanted.endpoints] = facts
        return facts

    def _nothing(self, why: str) -> Reading:
        return Reading(Facts(self.node, "no dump", unreadable=(Unreadable(why, self.node),)), 0)
