"""What is risky about a Service as it stands. Each warning is one function; ``warnings_of`` asks them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tidegate.model.names import SYSTEM_NAMESPACE, TRAFFIC_PREFIX, fence_install
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.traffic.census import Census
from tidegate.traffic.finding import Finding

Check = Callable[[Service, Census], Finding | None]


def two_revisions(service: Service, census: Census) -> Finding | None:
    """It selects pods of more than one revision: new connections go to either."""
    found: dict[tuple[str, str], list[Pod]] = {}
    for pod in serving(service, census):
        found.setdefault(census.revision_of(pod).key, []).append(pod)
    if len(found) < 2:
        return None
    named = ", ".join(
        f"{census.revision_of(pods[0])} ({census.revision_of(pods[0]).version or 'no version'}, {_pods(len(pods))})"
        for _, pods in sorted(found.items())
    )
    (workload, _), *others = sorted(found)
    if workload and all(other == workload for other, _ in others):
        return _finding(
            "two-revisions", service, f"it sends to {len(found)} revisions: {named}", "wait for the rollout to end"
        )
    step = "add the label that tells them apart to its selector, or scale one of them to zero"
    return _finding("two-revisions", service, f"it sends to {len(found)} versions: {named}", step)


def own_selector(service: Service, census: Census) -> Finding | None:
    """Every label it selects on is one that the pods' owner selects on too: whoever cuts a pod releases it."""
    if service.selector is None:
        return None
    seen = set()
    for pod in census.pods_of(service):
        workload = census.workload_of(pod)
        if workload is None or workload.uid in seen or workload.selector is None:
            continue
        seen.add(workload.uid)
        if set(service.selector.keys) <= set(workload.selector.keys):
            sentence = f"it selects by {service.selector} and so does {workload}: to cut a pod is to release it"
            command = f"tidegate prepare deploy/{workload.name} --service {service.name} -n {service.namespace}"
            step = f"`{command}` gives the Service a label of its own"
            if workload.kind != "Deployment":
                step = f"give the Service a label of its own, such as {TRAFFIC_PREFIX}{service.name}"
            return _finding("own-selector", service, sentence, step)
    return None


def not_ready_published(service: Service, census: Census) -> Finding | None:
    """publishNotReadyAddresses: endpoints stay ready while they terminate."""
    del census
    if not service.publish_not_ready_addresses:
        return None
    sentence = "publishNotReadyAddresses: every pod counts as ready until it is gone, terminating or not"
    step = "only a cut by label takes a pod out of it: `tidegate drain`, no gate can"
    return _finding("not-ready-published", service, sentence, step)


def no_selector(service: Service, census: Census) -> Finding | None:
    """Nobody knows who writes its slices: an observer that cannot be asked."""
    del census
    if service.selector is not None or service.type == "ExternalName":
        return None
    sentence = "it has no selector: somebody else writes its EndpointSlices, and label changes do not reach them"
    return _finding("no-selector", service, sentence, "take the pod out of it by hand before you drain it")


def headless(service: Service, census: Census) -> Finding | None:
    """Its clients hold addresses that no data plane can take from them."""
    del census
    if not service.is_headless or service.selector is None:
        return None
    sentence = "headless: its clients keep an address for as long as DNS, or they themselves, told them to"
    return _finding("headless", service, sentence, "drains of its pods are assumed, never verified")


def last_endpoint(service: Service, census: Census) -> Finding | None:
    """One ready endpoint, or none."""
    if service.type == "ExternalName":
        return None
    ready = {
        entry.uid or str(entry.addresses): entry
        for slice_ in census.slices_of(service)
        for entry in slice_.endpoints
        if entry.is_ready and not entry.is_terminating
    }
    if len(ready) > 1:
        return None
    if not ready:
        step = "look at its pods: `tidegate status` names those it selects, and the label that others miss"
        return _finding("last-endpoint", service, "it has no ready endpoint", step)
    (entry,) = ready.values()
    sentence = f"{entry.pod or ','.join(entry.addresses)} is its last ready endpoint"
    return _finding("last-endpoint", service, sentence, "scale up before you take it out")


def ungated(service: Service, census: Census) -> Finding | None:
    """Pods that are told to stop while traffic still comes, whoever deletes them without us."""
    pods = [pod for pod in census.pods_of(service) if not pod.is_terminating and not pod.is_finished]
    bare = [pod for pod in pods if not pod.is_gated]
    if not bare:
        return None
    sentence = f"{len(bare)} of its {_pods(len(pods))} have no gate: a rollout or an eviction ends them unverified"
    return _finding("ungated", service, sentence, "add the preStop hook to the template (docs/operating.md)")


CHECKS: tuple[Check, ...] = (
    two_revisions, own_selector, not_ready_published, no_selector, headless, last_endpoint, ungated,
)  # fmt: skip


def warnings_of(service: Service, census: Census) -> tuple[Finding, ...]:
    """Every warning about ``service``. None about those that no pod stands behind and whose writers are known: the
    API server's own Service, a fence, and the one that keeps cut pods scrapeable."""
    is_fence = service.namespace == SYSTEM_NAMESPACE and fence_install(service.name) is not None
    if is_fence or service.is_draining or (service.namespace, service.name) == ("default", "kubernetes"):
        return ()
    return tuple(found for check in CHECKS if (found := check(service, census)) is not None)


def serving(service: Service, census: Census) -> Iterable[Pod]:
    """The pods it selects that get new traffic, or will: neither leaving nor finished."""
    return (pod for pod in census.pods_of(service) if not pod.is_terminating and not pod.is_finished)


def _pods(count: int) -> str:
    return f"{count} pod{'' if count == 1 else 's'}"


def _finding(name: str, service: Service, sentence: str, step: str) -> Finding:
    return Finding(name, f"svc/{service}", sentence, step)
