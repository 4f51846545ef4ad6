"""Everything that was listed, indexed: who selects, lists and owns whom, in time that grows with what is there.

1,000 Services over 5,000 pods ask five million times "does it select?" when done pair by pair; each selector asks its
rarest label first here (tests/traffic/test_census.py measures it).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from tidegate.model.endpointslice import EndpointSlice, SliceEndpoint
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.model.workload import Workload
from tidegate.traffic.listing import Listing, every_endpoint
from tidegate.traffic.revision import Revision, labels_before, owner_of, revision_of

Key = tuple[str, str]
"""(namespace, name)."""


class Census:
    """What was listed at about one instant. Order is that of what was handed in.

    ``draining``: our own Services that keep cut pods scrapeable. They are no route, so they are not in ``services`` and
    select and list nobody here.
    """

    def __init__(
        self,
        pods: Iterable[Pod] = (),
        services: Iterable[Service] = (),
        slices: Iterable[EndpointSlice] = (),
        workloads: Iterable[Workload] = (),
    ) -> None:
        self.pods = tuple(pods)
        listed = tuple(services)
        self.services = tuple(one for one in listed if not one.is_draining)
        self.draining = tuple(one for one in listed if one.is_draining)
        self.slices = tuple(slices)
        self.workloads = tuple(workloads)
        self._revisions: dict[str, Revision] = {}

    # --- who selects whom ---

    def pods_of(self, service: Service) -> tuple[Pod, ...]:
        """The pods ``service`` selects, leaving and finished ones too; none for a Service without selector."""
        return self._selected.get((service.namespace, service.name), ())

    def services_of(self, pod: Pod) -> tuple[Service, ...]:
        """The Services that select ``pod``."""
        return self._selecting.get(pod.uid, ())

    def near(self, pod: Pod) -> tuple[Service, ...]:
        """The Services that select ``pod``, or ask for at least one label that it has, or had before a verb changed it:
        those it might be meant for."""
        found = {
            (one.namespace, one.name): one
            for key, value in (*pod.labels.items(), *labels_before(pod).items())
            for one in self._asking_for.get((pod.namespace, key, value), ())
        }
        return tuple(one for _, one in sorted(found.items()))

    @cached_property
    def _asking_for(self) -> dict[tuple[str, str, str], list[Service]]:
        found: dict[tuple[str, str, str], list[Service]] = {}
        for one in self.services:
            for requirement in one.selector.requirements if one.selector is not None else ():
                found.setdefault((one.namespace, requirement.key, requirement.values[0]), []).append(one)
        return found

    @cached_property
    def _selected(self) -> dict[Key, tuple[Pod, ...]]:
        return {(one.namespace, one.name): self._matching(one) for one in self.services}

    @cached_property
    def _selecting(self) -> dict[str, tuple[Service, ...]]:
        found: dict[str, list[Service]] = {}
        for one in self.services:
            for pod in self.pods_of(one):
                found.setdefault(pod.uid, []).append(one)
        return {uid: tuple(services) for uid, services in found.items()}

    def _matching(self, service: Service) -> tuple[Pod, ...]:
        if service.selector is None:
            return ()
        candidates: tuple[Pod, ...] | list[Pod] | None = None
        for requirement in service.selector.requirements:
            near = self._by_label.get((service.namespace, requirement.key, requirement.values[0]), [])
            candidates = near if candidates is None or len(near) < len(candidates) else candidates
        everyone = self._by_namespace.get(service.namespace, []) if candidates is None else candidates
        return tuple(pod for pod in everyone if service.selector.matches(pod.labels))

    @cached_property
    def _by_label(self) -> dict[tuple[str, str, str], list[Pod]]:
        found: dict[tuple[str, str, str], list[Pod]] = {}
        for pod in self.pods:
            for key, value in pod.labels.items():
                found.setdefault((pod.namespace, key, value), []).append(pod)
        return found

    @cached_property
    def _by_namespace(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.pods:
            found.setdefault(pod.namespace, []).append(pod)
        return found

    # --- who lists whom ---

    def slices_of(self, service: Service) -> tuple[EndpointSlice, ...]:
        """The slices that belong to ``service``, whoever wrote them."""
        return tuple(self._slices.get((service.namespace, service.name), ()))

    @cached_property
    def _slices(self) -> dict[Key, list[EndpointSlice]]:
        found: dict[Key, list[EndpointSlice]] = {}
        for slice_ in self.slices:
            found.setdefault((slice_.namespace, slice_.service), []).append(slice_)
        return found

    def pod_of(self, entry: SliceEndpoint) -> Pod | None:
        """The pod an entry stands for: by uid, by address where it names none."""
        if entry.uid:
            return self._by_uid.get(entry.uid)
        return next((pod for address in entry.addresses if (pod := self.pod_at(address)) is not None), None)

    def pod_at(self, address: str) -> Pod | None:
        """The pod that has ``address`` for itself; of two (an address used again) the one that is not leaving."""
        return self._by_address.get(address)

    @cached_property
    def _by_uid(self) -> dict[str, Pod]:
        return {pod.uid: pod for pod in self.pods}

    @cached_property
    def _by_address(self) -> dict[str, Pod]:
        found: dict[str, Pod] = {}
        for pod in self.pods:
            if pod.host_network or pod.is_finished:
                continue
            for ip in pod.ips:
                if ip not in found or found[ip].is_terminating:
                    found[ip] = pod
        return found

    def listings_of(self, pod: Pod) -> tuple[Listing, ...]:
        """Every entry for ``pod`` in any slice, under the rules of ``traffic.listings``."""
        found = [Listing(slice_, entry, "uid") for slice_, entry in self._entries_by_uid.get(pod.uid, ()) if pod.uid]
        own = every_endpoint(pod)
        for ip in pod.ips:
            for slice_, entry in self._entries_by_address.get(ip, ()):
                if any(one.covers(at) for one in own for at in slice_.endpoints_of(entry)):
                    found.append(Listing(slice_, entry, "address"))
        return tuple(found)

    @cached_property
    def _entries_by_uid(self) -> dict[str, list[tuple[EndpointSlice, SliceEndpoint]]]:
        found: dict[str, list[tuple[EndpointSlice, SliceEndpoint]]] = {}
        ours = {(one.namespace, one.name) for one in self.draining}
        for slice_ in self.slices:
            if (slice_.namespace, slice_.service) in ours:
                continue
            for entry in slice_.endpoints:
                found.setdefault(entry.uid, []).append((slice_, entry))
        return found

    @cached_property
    def _entries_by_address(self) -> dict[str, list[tuple[EndpointSlice, SliceEndpoint]]]:
        """Of the entries that name no pod."""
        found: dict[str, list[tuple[EndpointSlice, SliceEndpoint]]] = {}
        for slice_, entry in self._entries_by_uid.get("", ()):
            for address in entry.addresses[:1]:
                found.setdefault(address, []).append((slice_, entry))
        return found

    # --- who owns whom ---

    def workload_of(self, pod: Pod) -> Workload | None:
        """The topmost owner of ``pod`` (also of one that a verb released), None where it is not known."""
        owner = owner_of(pod)
        found = self._by_workload_uid.get(owner.uid) if owner is not None else None
        while found is not None and found.owner is not None and found.owner.uid in self._by_workload_uid:
            found = self._by_workload_uid[found.owner.uid]
        return found

    def owned_by(self, workload: Workload) -> tuple[Pod, ...]:
        """The pods of ``workload`` or of what it owns, those that a verb released from it too."""
        return tuple(self._owned.get(workload.uid, ()))

    def children_of(self, workload: Workload) -> tuple[Workload, ...]:
        """The workloads ``workload`` owns: the ReplicaSets of a Deployment."""
        return tuple(one for one in self.workloads if one.owner is not None and one.owner.uid == workload.uid)

    def revision_of(self, pod: Pod) -> Revision:
        """Which revision ``pod`` is."""
        if pod.uid not in self._revisions:
            self._revisions[pod.uid] = revision_of(pod, self._by_workload_uid)
        return self._revisions[pod.uid]

    @cached_property
    def _by_workload_uid(self) -> dict[str, Workload]:
        return {one.uid: one for one in self.workloads}

    @cached_property
    def _owned(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.pods:
            owner = owner_of(pod)
            while owner is not None:
                found.setdefault(owner.uid, []).append(pod)
                above = self._by_workload_uid.get(owner.uid)
                owner = above.owner if above is not None else None
        return found
