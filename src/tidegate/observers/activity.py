"""Asks a workload whether it is working: from the node agent, through it, or through the API server.

``Probed`` puts the answer beside the pod's sockets, for whoever waits until nothing is in flight. Sockets first, then
the workload: what came in before the first look is work at the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from tidegate.dataplane.sockets import NO_INBOUND, Quiet
from tidegate.kube import wire
from tidegate.kube.api import PODS
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError, Unreachable
from tidegate.kube.exchange import Request, parse_target
from tidegate.model import activity as probes
from tidegate.model.activity import Activity, Answer
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import ACTIVITY, WORK
from tidegate.model.pod import Pod
from tidegate.observers.proxied import ProxiedAgents

ACTIVITY_PATH = "/v1/activity"
ASK_SECONDS = 2.0
AGAIN_SECONDS_MAX = 10.0
EXEC_SECONDS = 10.0
"""A command has to be started in the container; Kubernetes' own exec probes are slow for the same reason."""
BODY_BYTES_MAX = 4 * 1024 * 1024
"""A large Prometheus page is 1 to 2 MiB; what is cut off cannot be judged."""
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


class ActivityProbe(Protocol):
    """One workload, ready to be asked."""

    async def ask(self) -> Answer:
        """Never raises: what cannot be read is ``is_idle`` None, with its reason."""
        ...


class SocketReader(Protocol):
    """As ``engine.observe.Connections``."""

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet: ...


def of_pod(pod: Pod, given: str = "") -> Activity | None:
    """The pod's probe: ``given``, else its annotation; None without one. Raises ``ValueError``."""
    text = given or pod.annotations.get(ACTIVITY, "")
    try:
        return probes.parse(text) if text else None
    except ValueError as error:
        raise ValueError(str(error) if given else f"annotation {ACTIVITY} of {pod}: {error}") from error


def of_revision(pod: Pod, revision: str) -> Activity | None:
    """The probe by which a pod tells of a revision's work; None without one. Raises ``ValueError``."""
    text = pod.annotations.get(WORK, "")
    return probes.parse(text.replace(probes.PLACE, revision)) if text else None


@dataclass(frozen=True, slots=True)
class Unaskable:
    """A probe that nobody can put: never idle, and says why."""

    text: str
    why: str

    async def ask(self) -> Answer:
        return Answer(self.text, None, self.why)


@dataclass(frozen=True, slots=True)
class DialledActivity:
    """Asked by the agent, from the pod's node at the pod's own address."""

    activity: Activity
    host: str

    async def ask(self) -> Answer:
        if self.activity.kind == "exec":
            return probes.unreadable(self.activity, "an agent runs no commands in pods: use http or metric")
        path, query = parse_target(self.activity.path)
        request = Request("GET", path, query, {"user-agent": "tidegate-activity"})
        try:
            peer = wire.Peer(self.host, self.activity.port, timeout_seconds=ASK_SECONDS)
            status, _, body = await wire.fetch(peer, request)
        except Unreachable as error:
            return probes.unreadable(self.activity, str(error))
        return _judged(self.activity, status, body)


@dataclass(frozen=True, slots=True)
class ProxiedActivity:
    """Asked from the command line: ``pods/proxy`` for http and metric, ``pods/exec`` for commands.

    Not where an agent reads the pod's sockets: an API server keeps its connection to the pod for 90 s for the next
    question (net/http's IdleConnTimeout, 1.36.2), and the pod would never be quiet. There, ``AgentActivity``.
    """

    client: KubeClient
    pod: Pod
    activity: Activity

    async def ask(self) -> Answer:
        try:
            if self.activity.kind == "exec":
                async with asyncio.timeout(EXEC_SECONDS):
                    code, output = await self.client.execute(self.pod_path("exec"), self._container, self._command)
                return probes.judge_exit(self.activity, code, output)
            path, query = parse_target(self.activity.path)
            async with asyncio.timeout(ASK_SECONDS):
                response = await self.client.exchange(Request("GET", f"{self.pod_path('proxy')}{path}", query))
                body = await response.read()
        except TimeoutError:
            return probes.unreadable(self.activity, "no answer in time")
        except KubeError as error:
            return probes.unreadable(self.activity, str(error))
        if response.status >= 400 and (why := _status_of(body)):
            return probes.unreadable(self.activity, why)  # the API server's own word, not the pod's
        return _judged(self.activity, response.status, body)

    def pod_path(self, subresource: str) -> str:
        name = self.pod.name if subresource == "exec" else f"{self.pod.name}:{self.activity.port}"
        return PODS.path(self.pod.namespace, name, subresource)

    @property
    def _container(self) -> str:
        return self.pod.annotations.get(DEFAULT_CONTAINER) or next(iter(self.pod.containers), "")

    @property
    def _command(self) -> tuple[str, ...]:
        return self.activity.command


@dataclass(frozen=True, slots=True)
class AgentActivity:
    """Asked through the agent of the pod's node, which reads the probe from the pod's annotation and dials the pod.

    ``revision``: asked is for its work, by the pod's other annotation (``names.WORK``)."""

    agents: ProxiedAgents
    pod: Pod
    activity: Activity
    revision: str = ""

    async def ask(self) -> Answer:
        try:
            about = (("revision", self.revision),) if self.revision else ()
            request = Request("GET", ACTIVITY_PATH, (("namespace", self.pod.namespace), ("pod", self.pod.name), *about))
            body = await self.agents.call(self.pod.node, request)
        except KubeError as error:
            return probes.unreadable(self.activity, str(error))
        return decode_answer(body, self.activity)


class Probed:
    """The pod's sockets and its workload's own word. ``is_over``: its processes have ended, nothing is in flight."""

    def __init__(
        self, connections: SocketReader, probe: ActivityProbe, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self._connections = connections
        self._probe = probe
        self._is_over = is_over
        self._asked_at = 0.0
        self._began_at = 0.0
        self._busy: Answer | None = None

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        """Never raises: what cannot be read is unreadable."""
        quiet = await self._connections.read(endpoints)
        if self._is_over():
            return settled(quiet)
        return merged(quiet, await self._answer())

    async def _answer(self) -> Answer:
        """Who was busy is asked again after an eighth of what has been waited: hours of work are not polled twice a
        second. Only that is remembered, never that it was idle."""
        now = asyncio.get_running_loop().time()
        pause = min((self._asked_at - self._began_at) / 8, AGAIN_SECONDS_MAX)
        if self._busy is not None and now - self._asked_at < pause:
            return self._busy
        if self._busy is None:
            self._began_at = now
        self._asked_at = now
        answer = await self._probe.ask()
        self._busy = None if answer.is_idle else answer
        return answer


def merged(quiet: Quiet, answer: Answer) -> Quiet:
    """Busy or unreadable is not quiet. The probe's word settles what silent sockets leave in doubt."""
    return settled(quiet) if answer.is_idle else replace(quiet, busy=(str(answer),))


def settled(quiet: Quiet) -> Quiet:
    """Without the doubt that a pod which listens nowhere leaves."""
    return replace(quiet, doubts=tuple(one for one in quiet.doubts if one != NO_INBOUND))


# --- between processes ---


class _WireAnswer(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    probe: str
    idle: bool | None
    detail: str
    amount: float | None = None


def encode_answer(answer: Answer, *, is_counted: bool = False) -> bytes:
    """``{"probe", "idle": true|false|null, "detail", "amount"?}``. ``amount`` goes only to who knows of it: a reader of
    before takes no field that it does not know."""
    amount = answer.amount if is_counted else None
    return msgspec.json.encode(_WireAnswer(answer.probe, answer.is_idle, answer.detail, amount))


def decode_answer(body: bytes, activity: Activity) -> Answer:
    """Never raises: what is not understood, or answers another probe, is unreadable."""
    try:
        raw = msgspec.json.decode(body, type=_WireAnswer)
    except msgspec.DecodeError as error:
        return probes.unreadable(activity, f"the agent's answer is not understood: {error}")
    if raw.probe != activity.text:
        return probes.unreadable(activity, f"the pod's annotation says {raw.probe!r} now")
    return Answer(raw.probe, raw.idle, raw.detail, raw.amount)


def _judged(activity: Activity, status: int, body: bytes) -> Answer:
    if len(body) > BODY_BYTES_MAX:
        return probes.unreadable(activity, f"an answer of {len(body)} bytes, at most {BODY_BYTES_MAX} are read")
    return probes.judge(activity, status, body)


class _Status(msgspec.Struct):
    kind: str = ""
    message: str = ""


def _status_of(body: bytes) -> str:
    """The message of a Kubernetes ``Status``; empty for any other body."""
    try:
        found = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        return ""
    return (found.message or "the API server refused") if found.kind == "Status" else ""
