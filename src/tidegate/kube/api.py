"""What every part asks of a Kubernetes API, as one protocol.

``KubeClient`` (kube/client.py) speaks it over an exchange; the lab's ``LocalApi`` speaks it straight into the
lab's store. Controllers, kubelets, proxies, agents and the engine are written against the protocol and cannot
tell which one they hold. Objects are plain JSON dicts and are never changed in place: copy, then patch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

JsonObject = dict[str, Any]
PatchStyle = Literal["merge", "json", "strategic"]


@dataclass(frozen=True, slots=True)
class Resource:
    """One API resource: where it lives and what it is called."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection or of one object."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [self.plural, name, subresource]
        return "/".join(part for part in parts if part)


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints")
EVENTS = Resource("", "v1", "events", "Event")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ENDPOINTSLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICASETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
INGRESSCLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
HORIZONTALPODAUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
PODDISRUPTIONBUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
MUTATINGWEBHOOKCONFIGURATIONS = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False
)
CUSTOMRESOURCEDEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)

# Tidegate's own (operator/crds.py)
RELEASES = Resource("tidegate.dev", "v1alpha1", "releases", "Release")
DRAINS = Resource("tidegate.dev", "v1alpha1", "drains", "Drain")
OBSERVERS = Resource("tidegate.dev", "v1alpha1", "observers", "Observer", namespaced=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a resource: a namespace ("" = all) and selectors in kubectl's grammar."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""


ALL = Selection()


@dataclass(frozen=True, slots=True)
class Listing:
    """The answer to a list: objects and the resourceVersion they are true at."""

    items: list[JsonObject]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch. ``type`` is ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR is raised as ApiError."""

    type: str
    object: JsonObject


@dataclass(frozen=True, slots=True)
class Deletion:
    """Options of a delete. ``None`` leaves the choice to the server; uid and resource_version are preconditions."""

    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch body and its grammar. ``subresource`` is "", "status", "scale" or "finalize"."""

    body: JsonObject | list[JsonObject]
    style: PatchStyle = "merge"
    subresource: str = ""
    dry_run: bool = field(default=False)


class Api(Protocol):
    """A Kubernetes API. Every method raises ``ApiError`` or ``Unreachable``."""

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject: ...

    async def list(self, resource: Resource, select: Selection = ALL, resource_version: str = "") -> Listing:
        """``resource_version`` "" is a quorum read, "0" any cached state."""
        ...

    def watch(
        self, resource: Resource, select: Selection = ALL, resource_version: str = ""
    ) -> AsyncIterator[WatchEvent]:
        """Events after ``resource_version``; raises ApiError 410 when that is too old; ends when the server ends it."""
        ...

    async def create(
        self, resource: Resource, obj: JsonObject, namespace: str = "", subresource: str = ""
    ) -> JsonObject: ...

    async def replace(self, resource: Resource, obj: JsonObject, subresource: str = "") -> JsonObject:
        """PUT by the object's own metadata (name, namespace, resourceVersion)."""
        ...

    async def patch(self, resource: Resource, name: str, patch: Patch, namespace: str = "") -> JsonObject: ...

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", options: Deletion = Deletion()
    ) -> JsonObject: ...
