"""Real proxies before a lab's pods (``lab up --ingress``): Traefik with its own controller, HAProxy and Envoy fed by a
small feeder of ours, and labelled so. Public surface: ``KINDS``, ``Kind``, ``composed``, ``manifests``, ``IMAGES``."""

from tidegate.rehearse.ingress.compose import KINDS, NODE_PORT, Kind, composed
from tidegate.rehearse.ingress.objects import IMAGES, manifests

__all__ = ["IMAGES", "KINDS", "NODE_PORT", "Kind", "composed", "manifests"]
