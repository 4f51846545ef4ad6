"""One file per data plane: raw dump in, facts out; what is not understood is unreadable, never clean.

Public surface:

- ``Facts``, ``Route``, ``Tracked``, ``Unreadable`` (facts.py): the one shape every parser produces.
- ``labkernel.parse(dump, source) -> Facts``: the lab kernel's JSON dump of one node.
- ``sockets.parse(text) -> tuple[Socket, ...] | Unreadable``: ``/proc/net/tcp`` or ``tcp6``.
- ``sockets.quiet(tables, endpoints, kubelet=()) -> Quiet``: is anything in flight at these endpoints?
- ``sockets.owned_by(sockets, inodes)``: the kubelet's share of a table, to be ignored by ``quiet``.
"""

from __future__ import annotations

from tidegate.dataplane.facts import Facts, Route, Tracked, Unreadable
from tidegate.dataplane.sockets import Quiet, Socket

__all__ = ["Facts", "Quiet", "Route", "Socket", "Tracked", "Unreadable"]
