"""Which kinds the garbage collector and the namespace controller look after."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.kube.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    LEASES,
    NAMESPACES,
    NODES,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
    Api,
    Resource,
    Selection,
)
from tidegate.kube.errors import ApiError

STATEFULSETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")

SERVED = (
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    ENDPOINTS,
    ENDPOINTSLICES,
    DEPLOYMENTS,
    REPLICASETS,
    CONFIGMAPS,
    SECRETS,
    SERVICEACCOUNTS,
    LEASES,
    PODDISRUPTIONBUDGETS,
    STATEFULSETS,
    DAEMONSETS,
    JOBS,
    REVISIONS,
    CLAIMS,
)
"""What every lab serves."""

PLAIN = (
    Resource("batch", "v1", "cronjobs", "CronJob"),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress"),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("", "v1", "resourcequotas", "ResourceQuota"),
    Resource("", "v1", "limitranges", "LimitRange"),
    Resource("", "v1", "podtemplates", "PodTemplate"),
    Resource("", "v1", "replicationcontrollers", "ReplicationController"),
)
"""What a lab may serve as plain objects, without a controller behind them."""


async def served(api: Api, candidates: Iterable[Resource] = PLAIN) -> tuple[Resource, ...]:
    """``SERVED`` and those of ``candidates`` that this server answers for."""
    found = list(SERVED)
    for resource in candidates:
        try:
            await api.list(resource, Selection(namespace="default"))
        except ApiError as error:
            if not error.is_not_found:
                raise
            continue
        found.append(resource)
    return tuple(found)
