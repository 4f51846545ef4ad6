"""The parts of an installation put together: those of ``agent/manifests.py``, and the kinds of the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.agent.manifests import Installation
    from tidegate.agent.roles import Piece

PARTS = ("crds", "agent", "coordinator", "fence", "operator", "webhook", "users")
OPTIONAL = ("prober",)
"""Only where they are named."""
_WHY_KINDS = """
Our own kinds: Release, Drain (the record of a retirement), Observer. Deleting a definition deletes its objects.
"""


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
