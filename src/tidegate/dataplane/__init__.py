"""One file per data plane: raw dump in, facts out; what is not understood is unreadable, never clean.

Public surface:

- ``Facts``, ``Route``, ``Tracked``, ``Unreadable`` (facts.py): the one shape every parser produces.
- ``labkernel.parse(dump, source) -> Facts``: the lab kernel's JSON dump of one node.
- ``nft.parse``, ``nft.parse_text``, ``iptables.parse``, ``ipvs.parse``, ``conntrack.parse``: real nodes' dumps, each
  ``(dump, source="", asking=EVERYTHING) -> Facts``; ``frontends.Asking`` narrows them and says what no dump tells;
  ``dumps.read`` tells them apart. The rules go through ``rules.py`` (one shape) and ``tracer.py`` (the walk).
- ``sockets.parse(text) -> tuple[Socket, ...] | Unreadable``: ``/proc/net/tcp`` or ``tcp6``.
- ``sockets.quiet(tables, endpoints, kubelet=()) -> Quiet``: is anything in flight at these endpoints?
- ``sockets.owned_by(sockets, inodes)``: the kubelet's share of a table, to be ignored by ``quiet``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.late import late

if TYPE_CHECKING:
    from tidegate.dataplane.facts import Facts, Route, Tracked, Unreadable
    from tidegate.dataplane.sockets import Quiet, Socket

__all__ = ["Facts", "Quiet", "Route", "Socket", "Tracked", "Unreadable"]

__getattr__ = late(
    __name__,
    {
        "Facts": "facts",
        "Quiet": "sockets",
        "Route": "facts",
        "Socket": "sockets",
        "Tracked": "facts",
        "Unreadable": "facts",
    },
)
