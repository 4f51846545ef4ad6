"""The worker behind each probe of each container, from the pod's admission to its end.

Source: Kubernetes v1.36.2 pkg/kubelet/prober/worker.go. Ticks count from admission, not from the container's
start; a container that has just started and is not ready gets one probe at once (``manualTriggerCh``); nothing
probes before initialDelaySeconds, and only the startup probe runs until it has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tidegate import vtime
from tidegate.lab.kubelet.prober import ProbeError, Target, probe
from tidegate.lab.kubelet.states import ContainerFacts, Running
from tidegate.lab.kubelet.thresholds import INITIAL, ProbeKind, ProbeTiming, Run
from tidegate.lab.runtime.spec import Runtime


class Probed(Protocol):
    """A container as its probes see it."""

    facts: ContainerFacts

    def target(self) -> Target: ...

    def believe(self, kind: ProbeKind, passed: bool) -> None:
        """A threshold was reached."""
        ...

    def say_unhealthy(self, message: str) -> None: ...


class ProbeWorker:
    """Probes one container in one way. ``trigger`` asks for a run now; ``stop`` ends it."""

    def __init__(self, kind: ProbeKind, action: Mapping[str, Any], container: Probed, runtime: Runtime) -> None:
        self.kind = kind
        self._action = action
        self._container = container
        self._runtime = runtime
        self._timing = ProbeTiming.of(dict(action))
        self._run = Run(self._timing)
        self._belief = INITIAL[kind]
        self._on_hold = False
        self._container_id = ""
        self._triggered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, start: Callable[..., asyncio.Task[Any]]) -> None:
        """Begin ticking; ``start`` is a nursery's."""
        self._task = start(self._tick(), name=f"{self.kind} probe of {self._container.facts.name}")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def trigger(self) -> None:
        """Probe now, beside the ticks."""
        self._triggered.set()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        next_tick = loop.time()
        while True:
            await self._probe()
            next_tick = max(next_tick, loop.time() - self._timing.period_seconds)  # a Go ticker keeps one missed tick
            if not self._triggered.is_set():
                next_tick += self._timing.period_seconds
                try:
                    async with asyncio.timeout_at(next_tick):
                        await self._triggered.wait()
                except TimeoutError:
                    continue
                next_tick -= self._timing.period_seconds
            self._triggered.clear()

    async def _probe(self) -> None:
        facts = self._container.facts
        if facts.container_id != self._container_id:
            self._container_id = facts.container_id
            self._on_hold = False
            self._run = Run(self._timing)
            self._belief = INITIAL[self.kind]
        state = facts.state
        if self._on_hold or not isinstance(state, Running):
            return
        if int((vtime.now() - state.started_at).total_seconds()) < self._timing.initial_delay_seconds:
            return
        if facts.started == (self.kind == "startup"):
            return
        try:
            passed, output = await probe(
                self._runtime, self._container.target(), self._action, self._timing.timeout_seconds
            )
        except ProbeError as error:
            self._say(f"probe errored and resulted in unknown state: {error}")
            return
        if not passed:
            self._say(f"probe failed: {output}")
        if self._container.facts.container_id == self._container_id:
            self._conclude(passed)

    def _say(self, what: str) -> None:
        self._container.say_unhealthy(f"{self.kind.capitalize()} {what}")

    def _conclude(self, passed: bool) -> None:
        verdict = self._run.take(passed)
        if verdict is None or verdict == self._belief:
            return
        self._belief = verdict
        if not verdict and self.kind != "readiness":
            self._on_hold = True  # until there is a new container
            self._run.restart()
        self._container.believe(self.kind, verdict)
