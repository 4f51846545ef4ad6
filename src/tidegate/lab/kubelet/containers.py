"""One container of a pod: started, watched, restarted and ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from tidegate import vtime
from tidegate.lab.kubelet import grace
from tidegate.lab.kubelet.backoff import Backoff, duration
from tidegate.lab.kubelet.environment import ConfigError, command_line
from tidegate.lab.kubelet.hooks import HookFailed, Hooks
from tidegate.lab.kubelet.prober import Target
from tidegate.lab.kubelet.probes import ProbeWorker
from tidegate.lab.kubelet.seams import Ground, Voice
from tidegate.lab.kubelet.states import ContainerFacts, Role, Running, State, Terminated, Waiting
from tidegate.lab.kubelet.thresholds import ProbeKind
from tidegate.lab.runtime.logs import NoLog
from tidegate.lab.runtime.spec import ContainerProcess, ContainerSpec, Namespace, StartError

_PRESENT = 'Container image "{}" already present on machine and can be accessed by the pod'  # since 1.34
_START_FAILED = 128
"""Exit code of a container whose program could not be started, as containerd reports it."""

_CONFIG_RETRY_SECONDS = 10.0

PROBES: tuple[tuple[ProbeKind, str], ...] = (
    ("startup", "startupProbe"),
    ("readiness", "readinessProbe"),
    ("liveness", "livenessProbe"),
)


@dataclass(frozen=True, slots=True)
class Home:
    """The pod a container lives in. ``changed`` tells its worker to look again."""

    ground: Ground
    voice: Voice
    hooks: Hooks
    pod: Callable[[], dict[str, Any]]
    ip: Callable[[], str]
    network: Callable[[], Namespace | None]
    changed: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How to end a container: why, in how many seconds, and whom to let go first (``turn``: seconds left -> None)."""

    cause: grace.Cause
    seconds: int
    message: str = ""
    turn: Callable[[float], Awaitable[None]] | None = None


class Container:
    """The kubelet's hold on one container. ``facts`` is what it knows of it."""

    def __init__(self, spec: dict[str, Any], role: Role, home: Home) -> None:
        self.spec = spec
        self.role = role
        self.facts = ContainerFacts(spec["name"], spec.get("image", ""), role)
        if role == "main" and not home.pod()["spec"].get("initContainers"):
            self.facts = replace(self.facts, state=Waiting("ContainerCreating"))
        self._home = home
        self._process: ContainerProcess | None = None
        self._attempt: ContainerSpec | None = None
        self._watch: asyncio.Task[None] | None = None
        self._exited = asyncio.Event()
        self._restarts = Backoff()
        self._pulls = Backoff()
        self._pull_failed_at: float | None = None
        self._ended_at = 0.0
        self._was_started = False
        self.failed_probe: grace.Cause | None = None
        """Set when a liveness or startup probe gave up on the running process."""
        runtime = home.ground.seams.runtime
        self.probes = {kind: ProbeWorker(kind, spec[field], self, runtime) for kind, field in PROBES if spec.get(field)}

    def redefine(self, spec: dict[str, Any]) -> None:
        """It is to run another image from now on."""
        self.spec = spec
        self._set(image=spec.get("image", ""))
        self._pull_failed_at, self._pulls = None, Backoff()

    # --- what probes see ---

    def target(self) -> Target:
        assert self._attempt is not None
        ground = self._home.ground
        return Target(self._home.ip(), ground.node_address, self.spec, self._attempt, ground.pods.dial)

    def believe(self, kind: ProbeKind, passed: bool) -> None:
        """A probe reached a threshold."""
        if not self.facts.is_running:
            return
        if kind == "readiness":
            self._set(ready=passed)
        elif kind == "startup" and passed:
            self._set(started=True, ready="readiness" not in self.probes)
            self._trigger_readiness()
        elif not passed:
            self.failed_probe = grace.Cause.LIVENESS if kind == "liveness" else grace.Cause.STARTUP
        self._home.changed()

    def say_unhealthy(self, message: str) -> None:
        self._say("Warning", "Unhealthy", message)

    def _trigger_readiness(self) -> None:
        if "readiness" in self.probes:
            self.probes["readiness"].trigger()

    # --- starting ---

    async def start(self) -> float | None:
        """Start it, or say why not. Returns seconds after which to try again, None when it runs or has failed."""
        loop = asyncio.get_running_loop()
        if self._was_started and isinstance(self.facts.state, Terminated | Waiting):
            wait = self._restarts.remaining(self._ended_at, loop.time())
            if wait > 0:
                self._back_off()
                return wait
        ground = self._home.ground
        entrypoint = ground.images.entrypoint(self.facts.image, self.spec.get("command") or ())
        if entrypoint is None and not self.spec.get("command"):
            return self._fail_pull(loop.time())
        self._say("Normal", "Pulled", _PRESENT.format(self.facts.image))
        place = ground.place(self._home.ip())
        try:
            env = await ground.environment.build(self._home.pod(), self.spec, place)
        except ConfigError as error:
            self._wait_for("CreateContainerConfigError", str(error))
            self._say("Warning", "Failed", f"Error: {error}")
            return _CONFIG_RETRY_SECONDS
        if self._was_started:
            self._restarts.advance(self._ended_at, loop.time())
        self._attempt = self._specify(entrypoint, env)
        await self._launch(self._attempt)
        return None

    def _specify(self, entrypoint: str | None, env: dict[str, str]) -> ContainerSpec:
        ground, metadata = self._home.ground, self._home.pod()["metadata"]
        attempt = self.facts.restart_count + (1 if self._was_started else 0)
        folder = ground.seams.log_folder
        path = f"{folder}/{metadata['namespace']}_{metadata['name']}_{metadata['uid']}/{self.facts.name}/{attempt}.log"
        return ContainerSpec(
            lab=ground.lab,
            namespace=metadata["namespace"],
            pod=metadata["name"],
            uid=metadata["uid"],
            container=self.facts.name,
            image=self.facts.image,
            argv=command_line({**self.spec, "command": None} if entrypoint else self.spec, env),
            entrypoint=entrypoint,
            env=env,
            attempt=attempt,
            working_directory=self.spec.get("workingDir") or "",
            log_path=path if folder else "",
            network=self._home.network(),
        )

    async def _launch(self, attempt: ContainerSpec) -> None:
        name = self.facts.name
        last_state = self.facts.state if isinstance(self.facts.state, Terminated) else self.facts.last_state
        self._set(restart_count=attempt.attempt, last_state=last_state, ready=False, started=False)
        self.failed_probe = None
        self._was_started = True
        self._say("Normal", "Created", "Container created")
        try:
            process = await self._home.ground.seams.runtime.start(attempt)
        except StartError as error:
            self._say("Warning", "Failed", f"Error: failed to start container process: {error}")
            self._finish(Terminated(_START_FAILED, "StartError", None, vtime.now(), message=str(error)))
            return
        self._process = process
        self._exited.clear()
        has_startup = "startup" in self.probes
        self._set(
            state=Running(process.started_at),
            container_id=f"process://{process.pid}",
            started=not has_startup,
            ready=not has_startup and "readiness" not in self.probes,
        )
        self._home.voice.journal(
            "process-started",
            name,
            namespace=attempt.namespace,
            node=self._home.ground.node_name,
            pid=process.pid,
            ip=self._home.ip(),
        )
        self._watch = asyncio.get_running_loop().create_task(self._wait_for_exit(process), name=f"exit of {name}")
        self._say("Normal", "Started", "Container started")
        post_start = (self.spec.get("lifecycle") or {}).get("postStart")
        if post_start:
            await self._post_start(post_start)
        if not has_startup:
            self._trigger_readiness()
        self._home.changed()

    async def _post_start(self, hook: dict[str, Any]) -> None:
        try:
            await self._home.hooks.run(self.target(), hook)
        except HookFailed:
            self._say("Warning", "FailedPostStartHook", "PostStartHook failed")
            cause = grace.Cause.POST_START
            seconds = grace.container_grace(self._home.pod(), self.spec, cause)
            await self.end(Ending(cause, seconds, "FailedPostStartHook"))

    def _fail_pull(self, now: float) -> float:
        """The image is not here and nothing is pulled: say so, as a registry that does not have it would."""
        image, hint = self.facts.image, self._home.ground.images.hint(self.facts.image)
        if self._pull_failed_at is not None:
            wait = self._pulls.remaining(self._pull_failed_at, now)
            if wait > 0:
                if self._wait_for("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {hint}'):
                    self._say("Normal", "BackOff", f'Back-off pulling image "{image}"')
                    self._say("Warning", "Failed", "Error: ImagePullBackOff")
                return wait
        self._say("Normal", "Pulling", f'Pulling image "{image}"')
        self._say("Warning", "Failed", f'Failed to pull image "{image}": {hint}')
        self._say("Warning", "Failed", "Error: ErrImagePull")
        self._pull_failed_at = now
        self._pulls.advance(now, now)
        self._wait_for("ErrImagePull", hint)
        return 1.0

    def _back_off(self) -> None:
        metadata, name = self._home.pod()["metadata"], self.facts.name
        pod = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        message = f"back-off {duration(self._restarts.delay_seconds)} restarting failed container={name} pod={pod}"
        if isinstance(self.facts.state, Terminated):
            self._set(last_state=self.facts.state)
        if self._wait_for("CrashLoopBackOff", message):
            self._say("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {pod}")

    # --- ending ---

    async def _wait_for_exit(self, process: ContainerProcess) -> None:
        code = await process.wait()
        reason = "Completed" if code == 0 else "Error"
        self._home.voice.journal("process-exited", self.facts.name, code=code)
        attempt = self._attempt
        self._finish(Terminated(code, reason, process.started_at, vtime.now(), self.facts.container_id))
        if code != 0 and attempt is not None:
            await self._explain(attempt)

    async def _explain(self, attempt: ContainerSpec) -> None:
        """Pods of a lab share the machine's ports: say so to a program that wanted every address for itself."""
        try:
            log = self._home.ground.seams.book.find(attempt.namespace, attempt.pod, attempt.container)
        except NoLog:
            return
        if await log.says(b"address already in use", b"eaddrinuse"):
            own = attempt.env.get("POD_IP", "")
            message = f"its port is taken: pods of a lab share one machine, so bind $POD_IP ({own}), not every address"
            self._say("Warning", "AddressInUse", message)

    def _finish(self, state: Terminated) -> None:
        self._process = None
        self._exited.set()
        self._ended_at = asyncio.get_running_loop().time()
        is_done = self.role == "init" and state.succeeded
        self._set(state=state, started=False, ready=is_done)
        self._home.changed()

    async def end(self, ending: Ending) -> None:
        """Hook, turn, SIGTERM, SIGKILL: returns when the process is gone. No effect when none runs."""
        process = self._process
        if process is None:
            return
        name = self.facts.name
        self._say("Normal", "Killing", ending.message or f"Stopping container {name}")
        left = ending.seconds
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and left > 0:
            left = grace.after(left, await self._pre_stop(hook, left))
        if ending.turn is not None and left > 0:
            left = grace.after(left, await _timed(ending.turn(left)))
        if self._process is not process:
            return  # it ended by itself meanwhile
        await self._stop(process, grace.stop_budget(left))
        await self._exited.wait()  # the task that waits for the process is a step behind us

    async def _stop(self, process: ContainerProcess, seconds: int) -> None:
        self._signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            self._signal(process, signal.SIGKILL)
            await process.wait()

    def _signal(self, process: ContainerProcess, number: signal.Signals) -> None:
        self._home.voice.journal("signal-sent", self.facts.name, signal=number.name)
        process.signal(number)

    async def _pre_stop(self, hook: dict[str, Any], seconds: int) -> float:
        """Run the hook within ``seconds``; returns the seconds it took. It opens the gate whatever happens."""
        loop, voice, name = asyncio.get_running_loop(), self._home.voice, self.facts.name
        began = loop.time()
        voice.journal("hook-started", name, hook="preStop")
        try:
            finished = await self._home.hooks.run_within(self.target(), hook, seconds)
            outcome = "done" if finished else "abandoned"
        except HookFailed as error:
            # the error stays out of the event, as in the kubelet: it may hold what the server answered
            outcome = f"failed: {error}"
            self._say("Warning", "FailedPreStopHook", "PreStopHook failed")
        voice.journal("hook-ended", name, hook="preStop", outcome=outcome)
        return loop.time() - began

    # --- bookkeeping ---

    def _set(self, **changes: Any) -> None:
        self.facts = replace(self.facts, **changes)

    def _wait_for(self, reason: str, message: str) -> bool:
        """Show it as waiting; True when that is news."""
        state: State = Waiting(reason, message)
        is_news = self.facts.state != state
        if is_news:
            self._set(state=state, ready=False, started=False)  # the worker, our caller, publishes it
        return is_news

    def _say(self, severity: Any, reason: str, message: str) -> None:
        self._home.voice.say(severity, reason, message, self.facts.name, self.role != "main")


async def _timed(waiting: Awaitable[None]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await waiting
    return loop.time() - began
