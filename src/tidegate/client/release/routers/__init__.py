"""Routers that divide a canary's requests by weight: one file each. Public surface: ``ROUTERS``, ``see``, ``weigh``,
``answer``, ``is_asked``."""

from tidegate.client.release.routers.seam import ROUTERS, see, weigh
from tidegate.client.release.routers.shown import answer, is_asked

__all__ = ["ROUTERS", "answer", "is_asked", "see", "weigh"]
