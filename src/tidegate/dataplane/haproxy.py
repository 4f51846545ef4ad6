"""HAProxy's own account of its servers: ``show servers state`` of the Runtime API, version 1 (seen: 2.6).

Traps this file knows of:

- A slot's name says nothing about who is in it: an ingress controller gives the slot of a pod that left to another pod
  (haproxytech kubernetes-ingress, pkg/haproxy/api/runtime.go), so only address and port are looked at.
- ``drain`` still lets requests through that stick to the server, and a server that is down by its health check comes
  back by itself: both are routes. Only maintenance is none.
- The dump ends with an empty line. Without it, it was cut short.
"""

from __future__ import annotations

import re

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.model.endpoint import Endpoint, canonical
from tidegate.model.epoch import Epoch
from tidegate.model.names import fence_name

COMMAND = "show servers state"
_MAINTENANCE = 0x01 | 0x02 | 0x20
"""Forced, inherited, by DNS resolution (``srv_admin_state``; SRV_ADMF_MAINT in its source).

0x04 only says that the configuration began it in maintenance: it stays set when the server is put to work (seen: 2.6).
0x08 and 0x10 are drain; 0x40 marks a host name set over the socket and is beside the point."""
_DRAIN = 0x08 | 0x10
_KNOWN_STATES = 0x7F
_OPERATION = {"0": "stopped", "1": "starting", "2": "", "3": "stopping"}
"""``srv_op_state`` (SRV_ST_*)."""
_NEEDED = ("be_name", "srv_name", "srv_addr", "srv_admin_state", "srv_port")


def parse(dump: str, install: str = "main", *, source: str = "") -> Facts:
    """Facts of one HAProxy process. A server with a host name but no address yet is unreadable, unless it rests."""
    found = _Found(install)
    try:
        found.read(dump)
    except ValueError as error:
        found.problems.append(Unreadable(str(error), COMMAND))
    return Facts(
        source,
        COMMAND,
        routes=tuple(
            Route(f"haproxy {name}", "", 0, "TCP", tuple(to), withheld=withheld)
            for (name, withheld), to in found.routes.items()
        ),
        fence=tuple(found.fence),
        unreadable=tuple(found.problems),
    )


class _Found:
    """Collects what the lines say."""

    def __init__(self, install: str) -> None:
        self.routes: dict[tuple[str, str], list[Endpoint]] = {}
        self.fence: list[Epoch] = []
        self.problems: list[Unreadable] = []
        self._install = install
        # "namespace_service_port" and "namespace-service-port" are the spellings controllers use.
        self._fence_name = re.compile(rf"(^|.*[_.-]){re.escape(fence_name(install))}([_.-](fence|1))?$")

    def read(self, dump: str) -> None:
        """Raises ``ValueError`` for what is no such dump."""
        lines = dump.split("\n")
        if lines[0].strip() != "1":
            raise ValueError(f"not version 1 of the format: {lines[0][:60]!r}")
        if lines[-2:] != ["", ""] or len(lines) < 4:
            raise ValueError("the dump was cut short: it ends with an empty line")
        if not lines[1].startswith("# "):
            raise ValueError("the dump names no columns")
        columns = lines[1][2:].split()
        if missing := [name for name in _NEEDED if name not in columns]:
            raise ValueError(f"no column {missing[0]}")
        for number, line in enumerate(lines[2:-2], start=3):
            fields = line.split()
            if len(fields) != len(columns):
                raise ValueError(f"line {number} has {len(fields)} fields of {len(columns)}")
            try:
                self._add(dict(zip(columns, fields, strict=True)))
            except ValueError as error:
                self.problems.append(Unreadable(str(error), f"{COMMAND} line {number}"))

    def _add(self, server: dict[str, str]) -> None:
        state = int(server["srv_admin_state"])
        if not 0 <= state <= _KNOWN_STATES:
            raise ValueError(f"admin state {state} is not known")
        if state & _MAINTENANCE:
            return
        name, address = f"{server['be_name']}/{server['srv_name']}", server["srv_addr"]
        if address == "-":
            raise ValueError(f"{name} has no address")
        if address.startswith("/"):
            return  # a UNIX socket leads to no pod
        endpoint = Endpoint(canonical(address), int(server["srv_port"]))
        if not 0 <= endpoint.port <= 65535:
            raise ValueError(f"{name} has port {endpoint.port}")
        if self._fence_name.match(server["be_name"]):
            self.fence.append(Epoch.of_endpoint(self._install, endpoint))
        else:
            self.routes.setdefault((name, _withheld(server, state)), []).append(endpoint)


def _withheld(server: dict[str, str], state: int) -> str:
    """Why no new request goes to it but one that sticks; "" where it takes its share."""
    if state & _DRAIN:
        return "drain"
    weight, told = server.get("srv_uweight", "?"), server.get("srv_op_state", "?")
    if not weight.isdigit() or int(weight) == 0:
        return f"weight {weight}"
    return _OPERATION.get(told, f"state {told}")
