"""Names that a cluster's DNS serves (Kubernetes DNS specification 1.1), and the name of the fence's headless twin."""

from __future__ import annotations

from tidegate.model.names import SYSTEM_NAMESPACE

DNS_FENCE_PREFIX = "tidegate-dns-"
"""Not the fence's own prefix: whoever reads rules takes every Service with that one for a fence of another install."""
DNS_FENCE_PORT = "fence"


def dns_fence_name(install: str) -> str:
    """Name of the fence's headless Service: its records show the epoch, no data plane but DNS carries it."""
    return DNS_FENCE_PREFIX + install


def service_domain(service: str, zone: str) -> str:
    """Of a Service (namespace/name) in a cluster's ``zone``: ``name.namespace.svc.zone.``, lower case."""
    namespace, _, name = service.partition("/")
    return f"{name}.{namespace}.svc.{zone.strip('.')}.".lower()


def fence_domains(install: str, zone: str) -> tuple[str, str]:
    """Two names whose SRV records show the epoch: by its port, and by the Service alone. A cache keeps them apart."""
    plain = service_domain(f"{SYSTEM_NAMESPACE}/{dns_fence_name(install)}", zone)
    return f"_{DNS_FENCE_PORT}._tcp.{plain}", plain
