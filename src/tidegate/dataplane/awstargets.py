"""AWS's own account of a target group: the answers of ``DescribeTargetGroups`` and ``DescribeTargetHealth`` (XML).

Shapes and states from botocore's model (data/elbv2/2015-12-01/service-2.json). What the states are worth:

- ``draining``: deregistered. An Application Load Balancer sends nothing new. A Network Load
  Balancer was seen to for two minutes (aws-load-balancer-controller#2366, aws/containers-roadmap#470: reports, not
  AWS's word), to absent and ``unused`` targets too: so it *lingers*.
- ``unhealthy``: a route, for a load balancer whose targets are all unhealthy sends to all of them. ``initial``,
  ``unavailable`` and ``unhealthy.draining``: routes, for nothing says that they are none. Only ``healthy`` is a target
  that is sent to for sure.
- It shows what the control plane knows, and no epoch: weak evidence always.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.model.endpoint import Endpoint, canonical

VERSION = "2015-12-01"
_LET_GO = frozenset({"draining", "unused"})
_ROUTED = frozenset({"healthy", "initial", "unhealthy", "unhealthy.draining", "unavailable"})
_TRANSPORTS = {"UDP": ("UDP",), "TCP_UDP": ("TCP", "UDP"), "QUIC": ("UDP",), "TCP_QUIC": ("TCP", "UDP")}


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """``protocol`` as AWS spells it; ``target_type`` is instance, ip, lambda or alb."""

    arn: str
    protocol: str
    target_type: str

    @property
    def is_application(self) -> bool:
        """Whether an Application Load Balancer serves it; anything else is a Network (or Gateway) Load Balancer's."""
        return self.protocol in ("HTTP", "HTTPS")


def parse_group(body: str, arn: str) -> TargetGroup:
    """The group ``arn`` of a DescribeTargetGroups answer. Raises ``ValueError`` unless it is there."""
    for member in _members(body, "DescribeTargetGroups", "TargetGroups"):
        if _text(member, "TargetGroupArn") == arn:
            return TargetGroup(arn, _text(member, "Protocol"), _text(member, "TargetType"))
    raise ValueError(f"{arn} is not in the answer")


def parse_health(body: str, group: TargetGroup, *, linger_seconds: float = 0.0, source: str = "") -> Facts:
    """Facts of one target group. ``linger_seconds`` is how long one that is not an application's may still send."""
    routes: list[Route] = []
    problems: list[Unreadable] = []
    name = group.arn.rpartition("targetgroup/")[2].partition("/")[0] or group.arn
    try:
        if group.target_type != "ip":
            raise ValueError(f"its targets are of type {group.target_type}, not pods")
        for member in _members(body, "DescribeTargetHealth", "TargetHealthDescriptions"):
            state, to = _text(member, "TargetHealth/State"), _targets(member, group)
            if state in _ROUTED:
                withheld = "" if state == "healthy" else state
                routes.append(Route(f"target group {name} ({state})", "", 0, to[0].protocol, to, withheld=withheld))
            elif state not in _LET_GO:
                problems.append(Unreadable(f"target {to[0]} in state {state!r}", name))
    except ValueError as error:
        problems.append(Unreadable(str(error), name))
    linger = 0.0 if group.is_application else linger_seconds
    return Facts(source, "target health", routes=tuple(routes), unreadable=tuple(problems), linger_seconds=linger)


def parse_error(body: str) -> str:
    """The code of an error answer, as ``Throttling``; "" where there is none. Its message may name accounts."""
    try:
        found = _plain(body).find("Error/Code")
    except ValueError:
        return ""
    return (found.text or "").strip() if found is not None else ""


def _targets(member: ElementTree.Element, group: TargetGroup) -> tuple[Endpoint, ...]:
    """Raises ``ValueError`` for a target that is no address."""
    host, port = _text(member, "Target/Id"), _text(member, "Target/Port")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"target {host!r} with port {port!r}")
    address = canonical(host)
    return tuple(Endpoint(address, int(port), transport) for transport in _TRANSPORTS.get(group.protocol, ("TCP",)))


def _members(body: str, action: str, listed: str) -> Iterable[ElementTree.Element]:
    """Raises ``ValueError`` for anything but a whole answer to ``action``."""
    root = _plain(body)
    found = root.find(f"{action}Result/{listed}")
    if root.tag != f"{action}Response" or found is None or any(one.tag != "member" for one in found):
        raise ValueError(f"no answer to {action}")
    if (root.findtext(f"{action}Result/NextMarker") or "").strip():
        raise ValueError(f"a part of an answer to {action}")
    return list(found)


def _text(element: ElementTree.Element, path: str) -> str:
    """Raises ``ValueError`` where it is not there."""
    text = (element.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"an entry without {path}")
    return text


def _plain(body: str) -> ElementTree.Element:
    """The document without its namespace. A DTD is refused: entities could make it grow without end."""
    if "<!" in body:
        raise ValueError("not an answer of this API: it has declarations")
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise ValueError(f"not XML: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
