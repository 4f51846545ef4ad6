"""The parts of an installation put together: those of ``agent/manifests.py``, and the kinds of the operator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.agent.manifests import Installation
    from tidegate.agent.roles import Manifest, Piece
    from tidegate.client.install import Offer

PARTS = ("crds", "agent", "coordinator", "fence", "operator", "webhook", "users")
OPTIONAL = ("prober",)
"""Only where they are named."""
_WHY_KINDS = """
Our own kinds: Release, Drain (the record of a retirement), Observer. Deleting a definition deletes its objects.
"""


SITE = ("agent", "coordinator", "fence")
"""What a lab's offer has as objects of its own."""


def objects_of(of: Installation, parts: tuple[str, ...] = PARTS, offer: Offer | None = None) -> list[Manifest]:
    """The chosen parts as a cluster takes them; a lab's ``offer`` has its own in the place of ``SITE``."""
    if offer is None:
        return [one.manifest for one in pieces_of(of, parts)]
    of = replace(of, image=offer.image, operator_image="", operator_env=offer.env)
    made = pieces_of(of, tuple(one for one in parts if one not in SITE))
    first = [one.manifest for one in made if one.part in ("namespace", "crds")]
    site = offer.objects if any(one in parts for one in SITE) else ()
    kept = [*first, *(one for one in site if one["kind"] != "Namespace")]
    return kept + [one.manifest for one in made if one.manifest not in kept]


def pieces_of(of: Installation, parts: tuple[str, ...] = PARTS) -> list[Piece]:
    """The chosen parts, in an order in which they can be created; the other way round they can be deleted."""
    from tidegate.agent.manifests import pieces
    from tidegate.agent.roles import Piece
    from tidegate.operator import crds

    namespace, *others = pieces(of, tuple(one for one in parts if one != "crds"))
    if "crds" not in parts:
        return [namespace, *others]
    first, *more = crds.manifests()
    return [namespace, Piece("crds", first, _WHY_KINDS), *(Piece("crds", one) for one in more), *others]
