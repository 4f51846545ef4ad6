"""The activity probe of a drain from the command line: who asks, and what is refused beforehand."""

from __future__ import annotations

from tidegate.client.options import VerbOptions
from tidegate.dataplane.sockets import Quiet
from tidegate.engine import act
from tidegate.engine.observe import Connections, PodSeen
from tidegate.kube.client import KubeClient
from tidegate.model.activity import Activity
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import ACTIVITY
from tidegate.model.pod import Pod
from tidegate.observers.activity import ActivityProbe, AgentActivity, Probed, ProxiedActivity, Unaskable, of_pod
from tidegate.observers.proxied import ProxiedAgents

UNREAD = "there is no agent to read the pod's sockets"


class UnreadSockets:
    """Nobody can read the pod's sockets, and nothing waits for them: only the workload's own word is asked."""

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        return Quiet(doubts=(UNREAD,))


def unaskable(pod: Pod, options: VerbOptions) -> tuple[str, ...]:
    """What is wrong with the pod's probe, a sentence: a drain that cannot ask would wait for nothing."""
    try:
        of_pod(pod, options.activity)
    except ValueError as error:
        return (str(error),)
    return ()


def activity_of(pod: Pod, options: VerbOptions) -> Activity | None:
    """The probe a drain will ask; None without a readable one."""
    try:
        return of_pod(pod, options.activity)
    except ValueError:
        return None


async def annotate(client: KubeClient, seen: PodSeen, options: VerbOptions) -> None:
    """Put a probe that was given by hand on the pod: its node's agent asks what stands there, and so does whoever
    goes on after us. Raises ``KubeError``."""
    if options.activity and seen.pod is not None and seen.pod.annotations.get(ACTIVITY) != options.activity:
        seen.update(await act.annotate(client, seen.pod, {ACTIVITY: options.activity}))


def probed(client: KubeClient, seen: PodSeen, connections: Connections, is_witnessed: bool) -> Connections:
    """``connections``, and the workload's own word where the pod names a probe."""
    pod = seen.pod
    assert pod is not None
    try:
        activity = of_pod(pod)
    except ValueError as error:
        return Probed(connections, Unaskable(pod.annotations[ACTIVITY], str(error)), lambda: _is_over(seen))
    if activity is None:
        return connections
    probe: ActivityProbe = ProxiedActivity(client, pod, activity)
    if is_witnessed and activity.kind != "exec":
        probe = AgentActivity(ProxiedAgents(client), pod, activity)
    return Probed(connections if is_witnessed else UnreadSockets(), probe, lambda: _is_over(seen))


def is_probed(seen: PodSeen) -> bool:
    """Whether the pod names a probe, readable or not."""
    return seen.pod is not None and bool(seen.pod.annotations.get(ACTIVITY))


def _is_over(seen: PodSeen) -> bool:
    return seen.is_gone or (seen.pod is not None and seen.pod.is_finished)
