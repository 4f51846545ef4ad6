"""The kinds of the Gateway API and of Traefik that the stories need, with schemas that keep whatever they are given.

Groups, versions, names and scopes are those of kubernetes-sigs/gateway-api (config/crd/standard and experimental) and
of traefik/traefik (docs/content/reference/dynamic-configuration); of their schemas only what is relied on is here: the
default weight, and that status is a subresource.
"""

from __future__ import annotations

from tidegate.kube.api import Resource

GATEWAY, TRAEFIK = "gateway.networking.k8s.io", "traefik.io"
GATEWAYCLASSES = Resource(GATEWAY, "v1", "gatewayclasses", "GatewayClass", namespaced=False)
GATEWAYS = Resource(GATEWAY, "v1", "gateways", "Gateway")
HTTPROUTES = Resource(GATEWAY, "v1", "httproutes", "HTTPRoute")
TRAEFIKSERVICES = Resource(TRAEFIK, "v1alpha1", "traefikservices", "TraefikService")
INGRESSROUTES = Resource(TRAEFIK, "v1alpha1", "ingressroutes", "IngressRoute")
_LOOSE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_BACKENDS = {
    "type": "array",
    "items": {**_LOOSE, "properties": {"weight": {"type": "integer", "format": "int32", "default": 1, "minimum": 0}}},
}
_ROUTE = {
    "type": "object",
    "properties": {
        "spec": {
            **_LOOSE,
            "properties": {"rules": {"type": "array", "items": {**_LOOSE, "properties": {"backendRefs": _BACKENDS}}}},
        },
        "status": _LOOSE,
    },
}
_ANY = {"type": "object", "properties": {"spec": _LOOSE, "status": _LOOSE}}


def definition(resource, versions=(), schema=None):
    """A CustomResourceDefinition; the last of ``versions`` is stored."""
    versions = versions or (resource.version,)
    names = {"kind": resource.kind, "listKind": f"{resource.kind}List", "plural": resource.plural}
    names["singular"] = resource.kind.lower()
    served = [
        {
            "name": one,
            "served": True,
            "storage": one == versions[-1],
            "schema": {"openAPIV3Schema": schema or _ANY},
            "subresources": {"status": {}},
        }
        for one in versions
    ]
    scope = "Namespaced" if resource.namespaced else "Cluster"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{resource.group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a lab's"},
        },
        "spec": {"group": resource.group, "scope": scope, "names": names, "versions": served},
    }


def definitions():
    """Whatever Traefik's two providers watch."""
    found = [
        definition(GATEWAYCLASSES),
        definition(GATEWAYS),
        definition(HTTPROUTES, schema=_ROUTE),
        definition(Resource(GATEWAY, "v1", "grpcroutes", "GRPCRoute")),
        definition(Resource(GATEWAY, "v1", "listenersets", "ListenerSet")),
        definition(Resource(GATEWAY, "v1beta1", "referencegrants", "ReferenceGrant"), ("v1", "v1beta1")),
        definition(Resource(GATEWAY, "v1", "backendtlspolicies", "BackendTLSPolicy"), ("v1alpha3", "v1")),
        definition(Resource(GATEWAY, "v1", "tlsroutes", "TLSRoute"), ("v1alpha2", "v1alpha3", "v1")),
        definition(Resource(GATEWAY, "v1alpha2", "tcproutes", "TCPRoute")),
        definition(TRAEFIKSERVICES),
        definition(INGRESSROUTES),
    ]
    plurals = {
        "ingressroutetcps": "IngressRouteTCP",
        "ingressrouteudps": "IngressRouteUDP",
        "middlewares": "Middleware",
        "middlewaretcps": "MiddlewareTCP",
        "serverstransports": "ServersTransport",
        "serverstransporttcps": "ServersTransportTCP",
        "tlsoptions": "TLSOption",
        "tlsstores": "TLSStore",
    }
    return [*found, *(definition(Resource(TRAEFIK, "v1alpha1", key, kind)) for key, kind in plurals.items())]
