"""Who else may route to a pod: told from the objects that name its Services, for whoever was not configured.

Pure: listed objects in, sentences out. Only what names one of the pod's own Services, or sits in the pod itself,
counts: a Service of type ClusterIP that nothing else mentions is routed by nodes alone. A plain load balancer goes
through node ports, so the nodes answer for it too; one that has pods for targets does not.

What is not to be seen: clients that dial pods by addresses they keep, Prometheus, kubectl port-forward (the pod's
sockets show those that are connected), and objects of kinds that are not listed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Objects = Mapping[str, Iterable[dict[str, Any]]]
"""Raw objects by plural and group: ``ingresses.networking.k8s.io``."""

SOURCES: Mapping[str, tuple[str, str, str, bool]] = {
    "ingresses.networking.k8s.io": ("networking.k8s.io", "v1", "Ingress", True),
    "ingressclasses.networking.k8s.io": ("networking.k8s.io", "v1", "IngressClass", False),
    "gateways.gateway.networking.k8s.io": ("gateway.networking.k8s.io", "v1", "Gateway", True),
    "gatewayclasses.gateway.networking.k8s.io": ("gateway.networking.k8s.io", "v1", "GatewayClass", False),
    "httproutes.gateway.networking.k8s.io": ("gateway.networking.k8s.io", "v1", "HTTPRoute", True),
    "grpcroutes.gateway.networking.k8s.io": ("gateway.networking.k8s.io", "v1", "GRPCRoute", True),
    "tlsroutes.gateway.networking.k8s.io": ("gateway.networking.k8s.io", "v1alpha2", "TLSRoute", True),
    "tcproutes.gateway.networking.k8s.io": ("gateway.networking.k8s.io", "v1alpha2", "TCPRoute", True),
    "udproutes.gateway.networking.k8s.io": ("gateway.networking.k8s.io", "v1alpha2", "UDPRoute", True),
    "ingressroutes.traefik.io": ("traefik.io", "v1alpha1", "IngressRoute", True),
    "ingressroutetcps.traefik.io": ("traefik.io", "v1alpha1", "IngressRouteTCP", True),
    "ingressrouteudps.traefik.io": ("traefik.io", "v1alpha1", "IngressRouteUDP", True),
    "traefikservices.traefik.io": ("traefik.io", "v1alpha1", "TraefikService", True),
    "targetgroupbindings.elbv2.k8s.aws": ("elbv2.k8s.aws", "v1beta1", "TargetGroupBinding", True),
}
"""What is listed: plural and group -> group, version, kind, whether it is namespaced."""

_ROUTES = ("httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes")
_CLASS = "kubernetes.io/ingress.class"
_DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
_UPSTREAM = {"nginx.ingress.kubernetes.io/service-upstream", "haproxy.org/use-service-name"}
_AWS_TARGETS = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type"
_AWS_TYPE = "service.beta.kubernetes.io/aws-load-balancer-type"
NEG = "cloud.google.com/neg"
_EXTERNAL_DNS = "external-dns.alpha.kubernetes.io/hostname"
DNS = "dns/cluster"
"""The cluster's own DNS servers, as an observer says that it covers them."""
_OVN = "k8s.ovn.org/node-chassis-id"
AMBIENT = "ambient.istio.io/redirection"
SIDECARS = {"istio-proxy": "istio", "linkerd-proxy": "linkerd", "kuma-sidecar": "kuma", "consul-dataplane": "consul"}


@dataclass(frozen=True, slots=True)
class Router:
    """Somebody who may route to a pod. ``ids`` are the names by which an observer can say that it covers it."""

    sentence: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """The pod: the Services (namespace/name) in whose slices it was seen, its containers' names, its annotations."""

    services: tuple[str, ...]
    containers: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """``known`` have an observer, ``suspected`` have none: the result is ``assumed``, naming them."""

    known: tuple[Router, ...] = ()
    suspected: tuple[Router, ...] = field(default=())


def discover(subject: Subject, services: Iterable[dict[str, Any]], objects: Objects, covers: Iterable[str]) -> Found:
    """Everybody who routes to the subject by what the objects say, beside the nodes.

    ``services`` are the subject's, ``covers`` what the configured observers answer for.
    """
    own, services = frozenset(subject.services), tuple(services)
    found = [
        *_ingresses(own, objects),
        *_gateway_routes(own, objects),
        *_traefik_routes(own, objects),
        *_target_groups(own, objects),
        *(router for service in services for router in _of_service(service)),
        *_sidecars(subject),
        *_data_planes(own, services, objects),
    ]
    answered = frozenset(covers)
    known = tuple(one for one in found if answered.intersection(one.ids))
    return Found(known, tuple(one for one in found if one not in known))


def _name(obj: dict[str, Any]) -> str:
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def _annotations(obj: dict[str, Any]) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def _ingresses(own: frozenset[str], objects: Objects) -> Iterable[Router]:
    classes = {_name(one): one for one in objects.get("ingressclasses.networking.k8s.io", ())}
    default = next((name for name, one in classes.items() if _annotations(one).get(_DEFAULT_CLASS) == "true"), "")
    for ingress in objects.get("ingresses.networking.k8s.io", ()):
        spec, namespace = ingress.get("spec") or {}, ingress["metadata"].get("namespace", "")
        hits = sorted({f"{namespace}/{name}" for name in _backends(spec)} & own)
        if not hits or any(_annotations(ingress).get(key) == "true" for key in _UPSTREAM):
            continue  # by the Service's own address, so by a node's rules
        name = spec.get("ingressClassName") or _annotations(ingress).get(_CLASS) or default
        controller = ((classes.get(name) or {}).get("spec") or {}).get("controller", "")
        ids = tuple(
            filter(None, (f"ingressclass/{name}" if name else "", f"controller/{controller}" if controller else ""))
        )
        by = f"class {name}" if name else "no class"
        by += f", controller {controller}" if controller else ""
        yield Router(f"Ingress {_name(ingress)} ({by}) routes to {', '.join(hits)}", ids)


def _backends(spec: dict[str, Any]) -> Iterable[str]:
    backends = [spec.get("defaultBackend") or {}]
    for rule in spec.get("rules") or ():
        backends += [path.get("backend") or {} for path in (rule.get("http") or {}).get("paths") or ()]
    return (name for one in backends if (name := (one.get("service") or {}).get("name")))


def _gateway_routes(own: frozenset[str], objects: Objects) -> Iterable[Router]:
    group = "gateway.networking.k8s.io"
    gateways = {_name(one): one for one in objects.get(f"gateways.{group}", ())}
    classes = {_name(one): one for one in objects.get(f"gatewayclasses.{group}", ())}
    for plural in _ROUTES:
        for route in objects.get(f"{plural}.{group}", ()):
            spec, namespace = route.get("spec") or {}, route["metadata"].get("namespace", "")
            hits = sorted(own.intersection(_references(spec, namespace)))
            if not hits:
                continue
            ids: list[str] = []
            for parent in spec.get("parentRefs") or ():
                gateway = f"{parent.get('namespace') or namespace}/{parent.get('name')}"
                named = ((gateways.get(gateway) or {}).get("spec") or {}).get("gatewayClassName", "")
                controller = ((classes.get(named) or {}).get("spec") or {}).get("controllerName", "")
                ids += [f"gateway/{gateway}"]
                ids += [f"gatewayclass/{named}"] if named else []
                ids += [f"controller/{controller}"] if controller else []
            by = f" ({', '.join(ids)})" if ids else ""
            yield Router(f"{route.get('kind') or plural} {_name(route)}{by} routes to {', '.join(hits)}", tuple(ids))


def _references(spec: dict[str, Any], namespace: str) -> Iterable[str]:
    for rule in spec.get("rules") or ():
        for backend in rule.get("backendRefs") or ():
            if backend.get("kind", "Service") == "Service":
                yield f"{backend.get('namespace') or namespace}/{backend.get('name')}"


def _traefik_routes(own: frozenset[str], objects: Objects) -> Iterable[Router]:
    for plural in ("ingressroutes", "ingressroutetcps", "ingressrouteudps", "traefikservices"):
        for route in objects.get(f"{plural}.traefik.io", ()):
            spec, namespace = route.get("spec") or {}, route["metadata"].get("namespace", "")
            hits = sorted(own.intersection(_traefik_services(spec, namespace)))
            if hits:
                kind = route.get("kind") or plural
                yield Router(f"{kind} {_name(route)} routes to {', '.join(hits)}", ("crd/traefik.io",))


def _traefik_services(spec: Any, namespace: str) -> Iterable[str]:
    """Whatever is called a Service anywhere in it: routes, weighted and mirrored ones nest."""
    if isinstance(spec, list):
        for one in spec:
            yield from _traefik_services(one, namespace)
    elif isinstance(spec, dict):
        for key, below in spec.items():
            if key in ("services", "mirrors") and isinstance(below, list):
                for one in below:
                    if isinstance(one, dict) and one.get("kind", "Service") == "Service" and not one.get("nativeLB"):
                        yield f"{one.get('namespace') or namespace}/{one.get('name')}"
            if key == "mirroring" and isinstance(below, dict) and below.get("kind", "Service") == "Service":
                yield f"{below.get('namespace') or namespace}/{below.get('name')}"
            yield from _traefik_services(below, namespace)


def _target_groups(own: frozenset[str], objects: Objects) -> Iterable[Router]:
    for binding in objects.get("targetgroupbindings.elbv2.k8s.aws", ()):
        spec, namespace = binding.get("spec") or {}, binding["metadata"].get("namespace", "")
        service = f"{namespace}/{(spec.get('serviceRef') or {}).get('name')}"
        if service in own and spec.get("targetType") != "instance":
            ids = (f"targetgroupbinding/{_name(binding)}", "loadbalancer/aws")
            yield Router(f"TargetGroupBinding {_name(binding)} has the pods of {service} for targets", ids)


def _of_service(service: dict[str, Any]) -> Iterable[Router]:
    """Load balancers that have pods, not nodes, for targets; and DNS outside the cluster."""
    name, notes, spec = _name(service), _annotations(service), service.get("spec") or {}
    is_by_pod = notes.get(_AWS_TARGETS) == "ip" or notes.get(_AWS_TYPE) == "nlb-ip"
    if spec.get("type") == "LoadBalancer" and is_by_pod:
        ids = ("loadbalancer/aws", f"service/{name}")
        yield Router(f"an AWS load balancer has the pods of {name} for targets", ids)
    if NEG in notes and has_groups(notes[NEG]):
        yield Router(
            f"network endpoint groups of Google Cloud list the pods of {name}", ("loadbalancer/gcp", f"service/{name}")
        )
    if spec.get("clusterIP") == "None" and spec.get("selector"):
        yield _by_dns(name, spec)
    if _EXTERNAL_DNS in notes and spec.get("clusterIP") == "None":
        ids = ("dns/external-dns", f"service/{name}")
        yield Router(f"ExternalDNS publishes the pods of {name} as {notes[_EXTERNAL_DNS]}", ids)


def _by_dns(name: str, spec: dict[str, Any]) -> Router:
    """Of a headless Service. One that publishes what is not ready keeps its pods in DNS until they are gone: no server
    can let go of them before, so none is waited for, and nothing is proven."""
    if spec.get("publishNotReadyAddresses"):
        return Router(
            f"DNS has the pods of the headless Service {name} until they are gone (publishNotReadyAddresses)", ()
        )
    sentence = f"clients of the headless Service {name} keep its address for as long as DNS told them to"
    return Router(sentence, (DNS, f"service/{name}"))


def has_groups(note: str) -> bool:
    """Whether a NEG annotation asks for groups; one that cannot be read may."""
    try:
        found = json.loads(note)
    except ValueError:
        return True
    return not isinstance(found, dict) or bool(found.get("ingress") or found.get("exposed_ports"))


def _data_planes(own: frozenset[str], services: Iterable[dict[str, Any]], objects: Objects) -> Iterable[Router]:
    """Networks that route Services themselves, by what they write on Nodes: their routes are no rules of the kernel's.

    A headless Service is nobody's to route.
    """
    if not own - {_name(one) for one in services if (one.get("spec") or {}).get("clusterIP") == "None"}:
        return
    networks = [network_of(node) for node in objects.get("nodes", ())]
    for network in ("Cilium", "OVN-Kubernetes"):
        if count := networks.count(network):
            where = f"on {count} node{'s' if count > 1 else ''}, beside the rules that are read"
            yield Router(f"{network} may route Services by itself {where}", (f"dataplane/{network.lower()}",))


def network_of(node: dict[str, Any]) -> str:
    """Which network that routes Services itself a Node is marked with, "" for none: Cilium by its condition
    (cilium/cilium operator/watchers/node_taint.go), OVN-Kubernetes by its chassis (pkg/util/node_annotations.go).
    """
    conditions = (node.get("status") or {}).get("conditions") or ()
    if any(one.get("type") == "NetworkUnavailable" and one.get("reason") == "CiliumIsUp" for one in conditions):
        return "Cilium"
    return "OVN-Kubernetes" if _OVN in _annotations(node) else ""


def _sidecars(subject: Subject) -> Iterable[Router]:
    if subject.annotations.get(AMBIENT) == "enabled":
        yield Router(
            "the pod is in Istio's ambient mesh: the ztunnels of its clients hold its address", ("mesh/istio",)
        )
    for name in subject.containers:
        if name in SIDECARS:
            mesh = SIDECARS[name]
            yield Router(f"{name} in the pod: the {mesh} sidecars of its clients hold its address", (f"mesh/{mesh}",))
