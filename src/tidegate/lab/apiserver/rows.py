"""Every kind the server serves, one row each, in the order discovery lists them."""

from __future__ import annotations

from tidegate.kube import api
from tidegate.kube.api import Resource
from tidegate.lab.apiserver.custom.strategy import DefinitionStrategy
from tidegate.lab.apiserver.kinds.namespaces import NamespaceStrategy
from tidegate.lab.apiserver.kinds.plain import (
    DeploymentStrategy,
    EventStrategy,
    ImmutableTypeStrategy,
    NodeStrategy,
    PlainStrategy,
    SliceStrategy,
    SpecStrategy,
    event_from_core,
    event_to_core,
)
from tidegate.lab.apiserver.kinds.pods import PodStrategy
from tidegate.lab.apiserver.kinds.services import ServiceStrategy
from tidegate.lab.apiserver.kinds.workloads import DaemonSetStrategy, JobStrategy, StatefulSetStrategy
from tidegate.lab.apiserver.registry import REVIEW, Conversion, Registry, Row, Subresource
from tidegate.lab.apiserver.strategy import Strategy
from tidegate.lab.apiserver.webhooks.matching import GROUP as HOOKS

READ_WRITE = ("get", "patch", "update")
PROXIED = ("create", "delete", "get", "patch", "update")
STREAMED = ("create", "get")
NO_COLLECTION = ("create", "delete", "get", "list", "patch", "update", "watch")


def status(kind: str) -> Subresource:
    return Subresource("status", kind, READ_WRITE)


SCALE = Subresource("scale", "Scale", READ_WRITE, "autoscaling", "v1")

_POD_FIELDS = {
    "spec.nodeName": ("spec", "nodeName"),
    "spec.restartPolicy": ("spec", "restartPolicy"),
    "spec.schedulerName": ("spec", "schedulerName"),
    "spec.serviceAccountName": ("spec", "serviceAccountName"),
    "spec.hostNetwork": ("spec", "hostNetwork"),
    "status.phase": ("status", "phase"),
    "status.podIP": ("status", "podIP"),
    "status.podIPs": ("status", "podIP"),
    "status.nominatedNodeName": ("status", "nominatedNodeName"),
}

_EVENT_FIELDS = {
    **{
        f"involvedObject.{name}": ("involvedObject", name)
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    },
    "reason": ("reason",),
    "reportingComponent": ("reportingComponent",),
    "source": ("source", "component"),
    "type": ("type",),
}

_POD_SUBRESOURCES = (
    Subresource("attach", "PodAttachOptions", STREAMED),
    Subresource("binding", "Binding", ("create",)),
    Subresource("ephemeralcontainers", "Pod", READ_WRITE),
    Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
    Subresource("exec", "PodExecOptions", STREAMED),
    Subresource("log", "Pod", ("get",)),
    Subresource("portforward", "PodPortForwardOptions", STREAMED),
    Subresource("proxy", "PodProxyOptions", PROXIED),
    Subresource("resize", "Pod", READ_WRITE),
    status("Pod"),
)


def _core() -> list[Row]:
    plain = PlainStrategy()
    return [
        Row(api.CONFIGMAPS, plain, ("cm",)),
        Row(api.ENDPOINTS, plain, ("ep",),
            deprecation="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        event_row(),
        Row(api.NAMESPACES, NamespaceStrategy(), ("ns",), verbs=NO_COLLECTION, returns_deleted=True,
            subresources=(Subresource("finalize", "Namespace", ("update",)), status("Namespace")),
            field_labels={"status.phase": ("status", "phase")}),
        Row(api.NODES, NodeStrategy(), ("no",),
            subresources=(Subresource("proxy", "NodeProxyOptions", PROXIED), status("Node")),
            field_labels={"spec.unschedulable": ("spec", "unschedulable")}),
        Row(api.PODS, PodStrategy(), ("po",), ("all",), subresources=_POD_SUBRESOURCES, returns_deleted=True,
            field_labels=_POD_FIELDS),
        Row(Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
            SpecStrategy({"phase": "Pending"}, has_generation=False), ("pvc",),
            subresources=(status("PersistentVolumeClaim"),), returns_deleted=True),
        Row(Resource("", "v1", "persistentvolumes", "PersistentVolume", False), Strategy(), ("pv",),
            subresources=(status("PersistentVolume"),), returns_deleted=True),
        Row(Resource("", "v1", "replicationcontrollers", "ReplicationController"), SpecStrategy(), ("rc",), ("all",),
            subresources=(SCALE, status("ReplicationController"))),
        Row(Resource("", "v1", "resourcequotas", "ResourceQuota"), Strategy(), ("quota",),
            subresources=(status("ResourceQuota"),), returns_deleted=True),
        Row(api.SECRETS, ImmutableTypeStrategy(), field_labels={"type": ("type",)}),
        Row(api.SERVICEACCOUNTS, plain, ("sa",), returns_deleted=True,
            subresources=(Subresource("token", "TokenRequest", REVIEW, "authentication.k8s.io", "v1"),)),
        Row(api.SERVICES, ServiceStrategy(), ("svc",), ("all",), returns_deleted=True,
            subresources=(Subresource("proxy", "ServiceProxyOptions", PROXIED), status("Service")),
            field_labels={"spec.clusterIP": ("spec", "clusterIP"), "spec.type": ("spec", "type")}),
    ]  # fmt: skip


def event_row() -> Row:
    return Row(api.EVENTS, EventStrategy(), ("ev",), field_labels=_EVENT_FIELDS)


def _events(core: list[Row]) -> Row:
    """events.k8s.io/v1: the same store under other field names."""
    stored = next(row for row in core if row.resource == api.EVENTS)
    fields = {label.replace("involvedObject", "regarding"): path for label, path in _EVENT_FIELDS.items()}
    fields["reportingController"] = fields.pop("reportingComponent")
    return Row(
        Resource("events.k8s.io", "v1", "events", "Event"),
        stored.strategy,
        ("ev",),
        field_labels=fields,
        storage=stored,
        conversion=Conversion(event_to_core, event_from_core),
    )


def _apps() -> list[Row]:
    def scaled(plural: str, kind: str, short: str, *subresources: Subresource) -> Row:
        resource = Resource("apps", "v1", plural, kind)
        strategy = SpecStrategy({"replicas": 0} if kind == "ReplicaSet" else {})
        if kind == "Deployment":
            strategy = DeploymentStrategy()
        elif kind == "StatefulSet":
            strategy = StatefulSetStrategy()
        elif kind == "DaemonSet":
            strategy = DaemonSetStrategy()
        return Row(resource, strategy, (short,), ("all",), subresources=(*subresources, status(kind)))

    return [
        Row(Resource("apps", "v1", "controllerrevisions", "ControllerRevision"), PlainStrategy()),
        scaled("daemonsets", "DaemonSet", "ds"),
        scaled("deployments", "Deployment", "deploy", SCALE),
        scaled("replicasets", "ReplicaSet", "rs", SCALE),
        scaled("statefulsets", "StatefulSet", "sts", SCALE),
    ]


def _other(core: list[Row]) -> list[Row]:
    scaled, plain = SpecStrategy(), PlainStrategy()
    rbac = "rbac.authorization.k8s.io"
    budget = SpecStrategy({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
    scaler = SpecStrategy({"currentMetrics": None, "desiredReplicas": 0}, has_generation=False)
    return [
        _events(core),
        Row(Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"), scaler, ("hpa",),
            ("all",), subresources=(status("HorizontalPodAutoscaler"),)),
        Row(Resource("batch", "v1", "cronjobs", "CronJob"), scaled, ("cj",), ("all",),
            subresources=(status("CronJob"),)),
        Row(Resource("batch", "v1", "jobs", "Job"), JobStrategy(), (), ("all",), subresources=(status("Job"),)),
        Row(Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", False),
            PlainStrategy(has_generation=True)),
        Row(Resource("networking.k8s.io", "v1", "ingresses", "Ingress"), SpecStrategy({"loadBalancer": {}}),
            ("ing",), subresources=(status("Ingress"),)),
        Row(Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"), PlainStrategy(has_generation=True),
            ("netpol",)),
        Row(api.PODDISRUPTIONBUDGETS, budget, ("pdb",), subresources=(status("PodDisruptionBudget"),)),
        Row(Resource(rbac, "v1", "clusterrolebindings", "ClusterRoleBinding", False), plain),
        Row(Resource(rbac, "v1", "clusterroles", "ClusterRole", False), plain),
        Row(Resource(rbac, "v1", "rolebindings", "RoleBinding"), plain),
        Row(Resource(rbac, "v1", "roles", "Role"), plain),
        Row(Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", False), plain, ("sc",)),
        Row(Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False),
            PlainStrategy(has_generation=True), ("pc",)),
        Row(Resource(HOOKS, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False),
            PlainStrategy(has_generation=True), categories=("api-extensions",)),
        Row(Resource(HOOKS, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False),
            PlainStrategy(has_generation=True), categories=("api-extensions",)),
        Row(Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False),
            DefinitionStrategy(), ("crd", "crds"), ("api-extensions",),
            subresources=(status("CustomResourceDefinition"),)),
        Row(api.LEASES, plain),
        Row(api.ENDPOINTSLICES, SliceStrategy()),
    ]  # fmt: skip


def _reviews() -> list[Row]:
    def review(group: str, plural: str, kind: str, namespaced: bool = False) -> Row:
        return Row(Resource(group, "v1", plural, kind, namespaced), PlainStrategy(), verbs=REVIEW)

    authentication, authorization = "authentication.k8s.io", "authorization.k8s.io"
    return [
        review(authentication, "selfsubjectreviews", "SelfSubjectReview"),
        review(authentication, "tokenreviews", "TokenReview"),
        review(authorization, "localsubjectaccessreviews", "LocalSubjectAccessReview", True),
        review(authorization, "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        review(authorization, "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        review(authorization, "subjectaccessreviews", "SubjectAccessReview"),
    ]


def built_in() -> Registry:
    """A fresh registry: allocation state in strategies belongs to one server."""
    core = _core()
    apps = _apps()
    reviews = _reviews()
    return Registry([*core, *apps, *reviews, *_other(core)])
