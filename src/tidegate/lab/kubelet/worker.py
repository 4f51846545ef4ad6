"""One pod on its node, from admission to its last status: sequential, level-triggered, like the real pod worker.

Being sequential is part of the truth: a preStop hook held on a liveness restart stalls this worker, and a
later delete of the pod waits behind it (facts: dataplane §1 "Blocking").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tidegate import vtime
from tidegate.kube.api import PODS, Deletion, Patch
from tidegate.kube.errors import ApiError, KubeError
from tidegate.lab.kubelet import grace
from tidegate.lab.kubelet.addresses import AddressesExhausted
from tidegate.lab.kubelet.containers import Container, Ending, Home
from tidegate.lab.kubelet.hooks import Hooks
from tidegate.lab.kubelet.ordering import TerminationOrder
from tidegate.lab.kubelet.plan import plan
from tidegate.lab.kubelet.seams import Ground, Voice
from tidegate.lab.kubelet.status import PodFacts, pod_status
from tidegate.lab.runtime.spec import Namespace

_RETRY_SECONDS = 1.0

Start = Callable[..., asyncio.Task[Any]]


class PodWorker:
    """Runs one pod. ``update`` and ``vanish`` are what the watch tells it; ``run`` ends when the pod has."""

    def __init__(self, ground: Ground, pod: dict[str, Any], hooks: Hooks) -> None:
        self.pod = pod
        self._ground = ground
        self._ip = ""
        self._has_address = False
        self._network: Namespace | None = None
        self._started_at: datetime | None = None
        self._is_gone = False
        self._is_over = False
        self._was_initialized = False
        self._leaving: list[Container] = []
        self._changed = asyncio.Event()
        self._dirty = asyncio.Event()
        self._sent: dict[str, Any] = {}
        self._sent_conditions: dict[str, dict[str, Any]] = {}
        voice = Voice(ground, lambda: self.pod)
        home = Home(ground, voice, hooks, lambda: self.pod, lambda: self._ip, lambda: self._network, self._look_again)
        spec = pod["spec"]
        self._containers: dict[str, Container] = {}
        for item in spec.get("initContainers") or []:
            role = "sidecar" if item.get("restartPolicy") == "Always" else "init"
            self._containers[item["name"]] = Container(item, role, home)  # type: ignore[arg-type]
        for item in spec["containers"]:
            self._containers[item["name"]] = Container(item, "main", home)

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def _is_ending(self) -> bool:
        return self._is_gone or bool(self.pod["metadata"].get("deletionTimestamp"))

    @property
    def _policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy", "Always"))

    def update(self, pod: dict[str, Any]) -> None:
        """The watch shows a newer version. Mostly the echo of our own status: that moves nothing (op RECONCILE)."""
        before, self.pod = self.pod, pod
        self._dirty.set()
        if _moves(before) != _moves(pod):
            self._changed.set()

    def vanish(self) -> None:
        """The object is gone from the API (force delete): end what still runs."""
        self._is_gone = True
        self._changed.set()

    def _look_again(self) -> None:
        self._changed.set()
        self._dirty.set()

    async def run(self) -> None:
        """Until every process has ended and the API has let go of the object."""
        async with vtime.Nursery() as nursery:
            writer = nursery.start(self._write_statuses(), name="status")
            await self._admit(nursery.start)
            while not self._is_ending:
                self._changed.clear()
                await _event_within(self._changed, await self._sync())
            await self._end()
            writer.cancel()
            await self._conclude()
            nursery.cancel()

    # --- living ---

    async def _admit(self, start: Start) -> None:
        self._started_at = vtime.now()
        try:
            self._ip = await self._join()
        except (AddressesExhausted, OSError) as error:
            voice = Voice(self._ground, lambda: self.pod)
            voice.say("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            return
        for container in self._containers.values():
            for worker in container.probes.values():
                worker.start(start)
        self._dirty.set()

    async def _join(self) -> str:
        """Get the pod an address, and a network where it has one of its own. Raises what making these raises."""
        ground = self._ground
        if self.pod["spec"].get("hostNetwork"):
            self._network = ground.pods.node
            return ground.node_address
        address = ground.addresses.take()
        try:
            self._network = await ground.pods.join(address)
        except BaseException:
            ground.addresses.release(address)
            raise
        self._has_address = True
        return address

    async def _sync(self) -> float | None:
        """One look at what is and what should be. Returns seconds until it must look again, None = until a change."""
        if self._is_over or not self._ip:
            return None
        for container in self._containers.values():
            if container.failed_probe is not None and container.facts.is_running:
                await self._restart(container, container.failed_probe)
        await self._adopt_images()
        facts = [container.facts for container in self._containers.values()]
        todo = plan(facts, self._policy, self._was_initialized)
        if todo.is_over:
            await self._finish()
            return None
        waits = []
        for name in todo.start:
            if self._is_ending:
                return None
            container = self._containers[name]
            wait = await container.start()
            self._was_initialized = self._was_initialized or container.role == "main"
            if wait is not None:
                waits.append(wait)
        self._dirty.set()
        return min(waits, default=None)

    async def _adopt_images(self) -> None:
        """Images are the one part of a running container's spec that may change (``kubectl set image pod/NAME``)."""
        spec = self.pod["spec"]
        for item in [*(spec.get("initContainers") or []), *spec["containers"]]:
            container = self._containers[item["name"]]
            if item.get("image") == container.spec.get("image"):
                continue
            if container.facts.is_running:
                message = f"Container {item['name']} definition changed, will be restarted"
                await container.end(Ending(grace.Cause.POD_ENDS, grace.pod_grace(self.pod), message))
            container.redefine(item)

    async def _restart(self, container: Container, cause: grace.Cause) -> None:
        """A probe gave up on it: hook and all, but without a deletionTimestamp."""
        name = container.facts.name
        message = f"Container {name} failed {cause}"
        if self._policy != "Never":
            message += ", will be restarted"
        seconds = grace.container_grace(self.pod, container.spec, cause)
        await container.end(Ending(cause, seconds, message))
        container.failed_probe = None

    async def _finish(self) -> None:
        """Its work is done (or has failed for good): what still runs ends, the address is free again."""
        await self._end_containers(grace.pod_grace(self.pod))
        self._is_over = True
        await self._release()
        self._dirty.set()

    # --- ending ---

    async def _end(self) -> None:
        for container in self._containers.values():
            for kind in ("liveness", "startup"):
                if kind in container.probes:
                    container.probes[kind].stop()
        self._dirty.set()
        if not self._is_over:
            await self._end_containers(grace.pod_grace(self.pod))
        await self._release()
        for container in self._containers.values():
            for worker in container.probes.values():
                worker.stop()
        self._is_over = True

    async def _end_containers(self, seconds: int) -> None:
        """All in parallel: every hook starts at once, only SIGTERM to sidecars waits its turn."""
        running = [container for container in self._containers.values() if container.facts.is_running]
        self._leaving = running
        order = TerminationOrder([(container.facts.name, container.role) for container in running])
        async with vtime.Nursery() as nursery:
            for container in running:
                nursery.start(self._end_in_turn(container, seconds, order))

    async def _end_in_turn(self, container: Container, seconds: int, order: TerminationOrder) -> None:
        name = container.facts.name
        try:
            await container.end(Ending(grace.Cause.POD_ENDS, seconds, turn=order.turn_of(name)))
        finally:
            order.ended(name)

    async def _release(self) -> None:
        """Once: by the second time its address may be another pod's."""
        if self._has_address:
            self._has_address = False
            await self._ground.pods.leave(self._ip)
            self._ground.addresses.release(self._ip)

    async def _conclude(self) -> None:
        """The last status, then the final delete, which only ever meets this very pod."""
        self._ground.environment.forget(self.uid)
        if self._is_gone:
            self._ground.seams.book.forget(self.uid)
            return
        metadata = self.pod["metadata"]
        while not self._is_gone:
            try:
                await self._send_status()
                options = Deletion(grace_seconds=0, uid=self.uid)
                await self._ground.seams.api.delete(PODS, metadata["name"], metadata["namespace"], options)
                break
            except ApiError as error:
                if error.is_not_found or error.is_conflict:
                    break
            except KubeError:
                pass
            await asyncio.sleep(_RETRY_SECONDS)
        self._ground.seams.book.forget(self.uid)

    # --- status ---

    async def _write_statuses(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._send_status()
            except KubeError as error:
                if isinstance(error, ApiError) and (error.is_not_found or error.is_conflict):
                    continue
                await asyncio.sleep(_RETRY_SECONDS)
                self._dirty.set()

    @property
    def _is_half_ended(self) -> bool:
        """Some of it has been ended, not yet all: the kubelet reports next when all has (SyncTerminatingPod).

        Until then a watcher sees ready and running as they were: on a real cluster too, the next state of a pod
        after "Terminating" is its end.
        """
        return not self._is_over and any(not container.facts.is_running for container in self._leaving)

    async def _send_status(self) -> None:
        if self._is_gone or self._is_half_ended:
            return
        facts = PodFacts(
            containers=[container.facts for container in self._containers.values()],
            host_ip=self._ground.node_address,
            ip=self._ip,
            second_ip=self._ground.second_ip(self._ip),
            started_at=self._started_at,
            has_ended=self._is_over,
            was_initialized=self._was_initialized,
            sent=self._sent_conditions,
        )
        status = pod_status(self.pod, facts, vtime.now())
        if status == self._sent:
            return
        metadata = self.pod["metadata"]
        body = {"metadata": {"uid": self.uid}, "status": status}
        patch = Patch(body, style="strategic", subresource="status")
        await self._ground.seams.api.patch(PODS, metadata["name"], patch, metadata["namespace"])
        self._sent = status
        self._sent_conditions = {condition["type"]: condition for condition in status["conditions"]}


def _moves(pod: dict[str, Any]) -> tuple[Any, ...]:
    """What of a pod makes its worker look again."""
    return pod["metadata"].get("deletionTimestamp"), pod["metadata"].get("generation"), pod["spec"]


async def _event_within(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
