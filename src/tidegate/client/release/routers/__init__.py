"""Routers that divide a canary's requests by weight: one file each. Public surface: ``ROUTERS``, ``see``, ``weigh``,
``answer``. Imported where a canary has a router, and nowhere else."""

from tidegate.client.release.routers.seam import ROUTERS, see, weigh
from tidegate.client.release.routers.shown import answer

__all__ = ["ROUTERS", "answer", "see", "weigh"]
