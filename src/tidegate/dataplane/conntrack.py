"""``conntrack -L`` and ``/proc/net/nf_conntrack`` -> the connections that are bound to an endpoint.

A route that is gone still carries what was bound to it before: a SYN whose answer is not there yet (its retransmission
goes the same way), and every datagram of a UDP flow, for as long as the entry lives. Both are in no rule. The endpoint
is who answers (the source of the reply direction), whoever translated: kube-proxy, a hostPort, a load balancer.

TIME_WAIT and CLOSE carry nothing; TIME_WAIT lingers for 120 s and would hold up every drain.
"""

from __future__ import annotations

import re

from tidegate.dataplane.facts import Facts, Tracked, Unreadable
from tidegate.dataplane.frontends import EVERYTHING, Asking
from tidegate.model.endpoint import Endpoint, canonical

# net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntrack_names; NONE is an entry nobody has seen a packet of.
TCP_STATES = {
    "NONE": "SYN_SENT", "SYN_SENT": "SYN_SENT", "SYN_SENT2": "SYN_SENT", "SYN_RECV": "SYN_RECV",
    "ESTABLISHED": "ESTABLISHED", "FIN_WAIT": "CLOSING", "CLOSE_WAIT": "CLOSING", "LAST_ACK": "CLOSING",
    "TIME_WAIT": "", "CLOSE": "", "LISTEN": "SYN_SENT",
}  # fmt: skip
# net/netfilter/nf_conntrack_proto_sctp.c
SCTP_STATES = {
    "NONE": "SYN_SENT", "CLOSED": "", "COOKIE_WAIT": "SYN_SENT", "COOKIE_ECHOED": "SYN_RECV",
    "ESTABLISHED": "ESTABLISHED", "SHUTDOWN_SENT": "CLOSING", "SHUTDOWN_RECD": "CLOSING",
    "SHUTDOWN_ACK_SENT": "CLOSING", "HEARTBEAT_SENT": "ESTABLISHED", "HEARTBEAT_ACKED": "ESTABLISHED",
}  # fmt: skip
_SERVED = {"tcp": "TCP", "udp": "UDP", "sctp": "SCTP"}
_TUPLE = r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) "
_ENTRY = re.compile(
    r"(?:ipv[46] +\d+ )?(tcp|udp|sctp) +(?:6|17|132) (?:(\d+) )?(?:([A-Z][A-Z0-9_]*) )?"
    + _TUPLE
    + r"(?:packets=\d+ bytes=\d+ )?(?:zone-\w+=\d+ )?(?:\[UNREPLIED\] )?"
    + _TUPLE
    + r"(?:packets=\d+ bytes=\d+ )?(?:zone-\w+=\d+ )?((?:\[\w+\] ?|[\w-]+=\S+ ?)*)"
)
_OTHER = re.compile(
    r"(?:ipv[46] +\d+ )?(?:icmp|icmpv6|gre|dccp|udplite|igmp|unknown|esp|ah|\d+) +\d+ (?:\d+ )?.*src=\S+ dst=\S+.*"
)
_COUNT = re.compile(r"conntrack v\S+ \(conntrack-tools\): (\d+) flow entries have been shown\.")


def parse(dump: str, source: str = "", asking: Asking = EVERYTHING) -> Facts:
    """The connections of one node, or only those to the endpoints asked about; none when ``dump`` is empty
    (``conntrack -L`` prints nothing then). Never raises.
    """
    wanted = None if asking.endpoints is None else {endpoint.address for endpoint in asking.endpoints}
    tracked: list[Tracked] = []
    count = 0
    for number, line in enumerate(dump.split("\n"), start=1):
        if not line.strip():
            continue
        found = _ENTRY.fullmatch(line.rstrip() + " ")
        try:
            if found:
                if wanted is None or canonical(found[8]) in wanted:
                    tracked += _tracked(found)
            elif shown := _COUNT.fullmatch(line.strip()):
                if int(shown[1]) != count:
                    raise ValueError(f"{shown[1]} entries were shown, {count} are here")
                continue
            elif not _OTHER.fullmatch(line.rstrip()):
                raise ValueError(f"{line[:120]!r}")
        except ValueError as error:
            why = Unreadable(f"not a list of conntrack: {error}", f"line {number}")
            return Facts(source, "conntrack", unreadable=(why,))
        count += 1
    return Facts(source, "conntrack", tracked=tuple(tracked))


def _tracked(found: re.Match[str]) -> list[Tracked]:
    """One entry, or none when it carries nothing any more. Raises ``ValueError``."""
    protocol = _SERVED[found[1]]
    state = _state(found[1], found[3], found[12])
    if not state:
        return []
    ends = [_endpoint(found[at], found[at + 2], protocol) for at in (4, 8)]
    destination = _endpoint(found[5], found[7], protocol)
    return [Tracked(protocol, state, ends[0], destination, ends[1])]


def _state(protocol: str, name: str | None, rest: str) -> str:
    if protocol == "udp":
        if name is not None:
            raise ValueError(f"UDP in state {name}")
        return "NONE"
    if name is None and "OFFLOAD]" in rest:  # an entry in a flow table prints neither state nor time left
        return "ESTABLISHED"
    states = TCP_STATES if protocol == "tcp" else SCTP_STATES
    if name not in states:
        raise ValueError(f"{protocol} in state {name}")
    return states[name]


def _endpoint(address: str, port: str, protocol: str) -> Endpoint:
    number = int(port)
    if number > 65535:
        raise ValueError(f"port {port}")
    return Endpoint(canonical(address), number, protocol)
