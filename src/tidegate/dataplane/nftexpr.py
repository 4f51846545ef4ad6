"""nftables expressions, as ``nft -j`` prints them (libnftables-json(5), schema 1), -> steps of ``rules.py``.

One table as one family sees it. What has no meaning here raises ``NotUnderstood`` inside and comes out as ``Opaque``
in its place in the rule: only a packet that gets there makes it matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tidegate.dataplane.rules import (
    DADDR,
    DPORT,
    NEVER,
    PROTO,
    PROTOCOLS,
    TARGETS_MAX,
    Dnat,
    Lookup,
    Maybe,
    NotUnderstood,
    Opaque,
    Region,
    Row,
    Step,
    Target,
    Test,
    Verdict,
    address_number,
    complement,
    largest,
    network_range,
    point,
    region_of,
    the_point,
)

READ_IPTABLES_SAVE = "read iptables-save"

_META_FREE = frozenset([
    "mark", "iif", "iifname", "iiftype", "iifkind", "iifgroup", "oif", "oifname", "oiftype", "oifkind", "oifgroup",
    "sdif", "sdifname", "skuid", "skgid", "cgroup", "priority", "length", "protocol", "pkttype", "cpu", "random",
    "time", "day", "hour", "secmark", "rtclassid", "nftrace", "ibrname", "obrname",
])  # fmt: skip
_CT_FREE = frozenset([
    "state", "status", "mark", "direction", "expiration", "helper", "label", "l3proto", "protocol", "zone", "count",
    "bytes", "packets", "avgpkt", "id", "event", "saddr", "daddr", "proto-src", "proto-dst", "secmark", "ip", "ip6",
])  # fmt: skip
_FREE = frozenset(
    ["fib", "numgen", "jhash", "symhash", "rt", "socket", "osf", "exthdr", "ipsec", "tcp option", "ip option"]
)
_PORTED = ("tcp", "udp", "sctp", "dccp", "udplite")
_PASSING = frozenset(
    ["counter", "log", "set", "map", "notrack", "ct helper", "ct timeout", "ct expectation", "flow", "last", "secmark"]
)
"""Statements after which a packet goes on as it was."""
_THINNING = frozenset(["limit", "quota", "ct count"])
"""Statements that some packets pass and others do not."""
_XT_PASSING = frozenset([
    "MARK", "CONNMARK", "LOG", "NFLOG", "TRACE", "CT", "NOTRACK", "SET", "CLASSIFY", "DSCP", "TOS", "TCPMSS",
    "SECMARK",
])  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class NamedSet:
    """A set or map: its elements as nft prints them. ``is_dynamic``: packets change it, a dump tells only what was."""

    name: str
    elements: list[Any]
    is_dynamic: bool = False


@dataclass(eq=False, slots=True)
class Lowering:
    """Turns the expressions of one table into steps for one address family."""

    family: int
    sets: dict[str, NamedSet] = field(default_factory=dict)
    _rows: dict[tuple[str, tuple[int | None, ...], bool], Lookup] = field(default_factory=dict)

    def steps_of(self, expressions: Iterable[Any]) -> tuple[Step, ...]:
        """The steps of one rule, in its order."""
        steps: list[Step] = []
        given = list(expressions)
        for at, expression in enumerate(given):
            try:
                steps += self._step(expression, is_last=at == len(given) - 1)
            except NotUnderstood as error:
                steps.append(Opaque(str(error)))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                steps.append(Opaque(f"{type(error).__name__} {error} in {str(expression)[:120]}"))
        return tuple(steps)

    def _step(self, expression: Any, is_last: bool) -> list[Step]:
        if not isinstance(expression, dict) or len(expression) != 1:
            raise NotUnderstood(f"not an expression: {str(expression)[:120]}")
        (kind, given), = expression.items()  # fmt: skip
        if kind == "match":
            return self._match(given)
        if kind in ("jump", "goto", "accept", "drop", "return", "continue", "reject"):
            return list(_verdict(expression))
        if kind == "vmap":
            return self._vmap(given)
        if kind == "dnat":
            return self._dnat(given)
        if kind == "redirect":
            _only_keys(given or {}, "port", "flags")
            return [Dnat((Target(None, None, _port((given or {}).get("port")), is_here=True),))]
        if kind in ("masquerade", "snat"):
            return [Verdict("accept")]
        if kind == "mangle":
            return _mangle(given)
        if kind in _PASSING:
            return []
        if kind in _THINNING:
            return [Maybe()]
        if kind == "xt":
            return _xt(given, is_last)
        raise NotUnderstood(f"{kind} {str(given)[:120]}")

    def _match(self, given: Any) -> list[Step]:
        _only_keys(given, "left", "op", "right")
        left, op, right = given["left"], given["op"], given["right"]
        if isinstance(left, dict) and left.get("meta") == {"key": "nfproto"}:
            return self._family(op, right)
        if isinstance(left, dict) and "concat" in left:
            return self._concat(left["concat"], op, right)
        which, implied = self._selector(left)
        if which is None or self._is_dynamic(right):
            return [*implied, Maybe()]
        region = self._region(right, which)
        if op not in ("==", "in"):
            region = _compared(op, region, largest(which, self.family))
        return [*implied, Test(which, region)]

    def _family(self, op: str, right: Any) -> list[Step]:
        if right not in ("ipv4", "ipv6") or op not in ("==", "!="):
            raise NotUnderstood(f"meta nfproto {op} {right}")
        is_ours = right == f"ipv{self.family}"
        return [] if is_ours == (op == "==") else [Test(PROTO, NEVER)]

    def _concat(self, parts: list[Any], op: str, right: Any) -> list[Step]:
        fields, implied = self._selectors(parts)
        if op not in ("==", "in") or self._is_dynamic(right) or all(which is None for which in fields):
            return [*implied, Maybe()]
        if isinstance(right, dict) and "concat" in right:
            right = {"set": [right]}
        return [*implied, self._lookup(fields, right, is_map=False)]

    def _vmap(self, given: Any) -> list[Step]:
        fields, implied = self._keys(given["key"])
        lookup = self._lookup(fields, given["data"], is_map=True)
        return [*implied, _certain(lookup, given["key"], given["data"])]

    def _dnat(self, given: Any) -> list[Step]:
        _only_keys(given, "family", "addr", "port", "flags", "type_flags")
        family = given.get("family")
        if family is not None and family != ("ip" if self.family == 4 else "ip6"):
            return [Test(PROTO, NEVER)]
        address, port = given.get("addr"), _port(given.get("port"))
        if isinstance(address, dict) and "map" in address:
            fields, implied = self._keys(address["map"]["key"])
            data = address["map"]["data"]
            lookup = self._lookup(fields, data, is_map=True, is_address=True)
            if port is not None:
                raise NotUnderstood("dnat to a map, and to a port besides")
            return [*implied, *_whichever(_certain(lookup, address["map"]["key"], data))]
        return [Dnat((self._target(address, port),))]

    def _target(self, address: Any, port: int | None) -> Target:
        if address is None:
            return Target(None, None, port)
        if isinstance(address, dict) and "concat" in address:
            address, number = address["concat"]
            port = _port(number)
        (low, high), *more = self._ranges(address, DADDR)
        if more or high - low >= TARGETS_MAX:
            raise NotUnderstood(f"dnat to {str(address)[:120]}")
        return Target(low, high, port)

    def _keys(self, key: Any) -> tuple[tuple[int | None, ...], list[Step]]:
        return self._selectors(key["concat"] if isinstance(key, dict) and "concat" in key else [key])

    def _selectors(self, parts: list[Any]) -> tuple[tuple[int | None, ...], list[Step]]:
        fields: list[int | None] = []
        implied: list[Step] = []
        for part in parts:
            which, more = self._selector(part)
            fields.append(which)
            implied += more
        return tuple(fields), implied

    def _selector(self, left: Any) -> tuple[int | None, list[Step]]:
        """Which followed field ``left`` reads, None for another; and what reading it implies (``tcp dport``: TCP)."""
        if not isinstance(left, dict) or len(left) != 1:
            raise NotUnderstood(f"not a selector: {str(left)[:120]}")
        (kind, given), = left.items()  # fmt: skip
        if kind == "payload":
            return self._payload(given)
        if kind == "meta" and given["key"] == "l4proto":
            return PROTO, []
        if (kind == "meta" and given["key"] in _META_FREE) or (kind == "ct" and given["key"] in _CT_FREE):
            return None, []
        if kind in ("&", "|", "^", "<<", ">>"):
            return None, self._selector(given[0])[1]
        if kind in _FREE:
            return None, []
        raise NotUnderstood(f"selector {str(left)[:120]}")

    def _payload(self, given: Any) -> tuple[int | None, list[Step]]:
        protocol, name = given.get("protocol"), given.get("field")
        if protocol in ("ip", "ip6"):
            if protocol != ("ip" if self.family == 4 else "ip6"):
                return None, [Test(PROTO, NEVER)]
            return {"daddr": DADDR, "protocol": PROTO, "nexthdr": PROTO}.get(name), []
        if protocol == "th":
            return (DPORT if name == "dport" else None), []
        if protocol in PROTOCOLS:
            return (DPORT if name == "dport" and protocol in _PORTED else None), [
                Test(PROTO, point(PROTOCOLS[protocol]))
            ]
        if protocol in ("ether", "vlan"):
            return None, []
        raise NotUnderstood(f"payload {str(given)[:120]}")

    def _is_dynamic(self, right: Any) -> bool:
        return isinstance(right, str) and right.startswith("@") and self._named(right).is_dynamic

    def _named(self, reference: str) -> NamedSet:
        found = self.sets.get(reference[1:])
        if found is None:
            raise NotUnderstood(f"{reference} is not in the dump")
        return found

    def _elements(self, data: Any) -> list[Any]:
        if isinstance(data, str) and data.startswith("@"):
            return self._named(data).elements
        if isinstance(data, dict) and isinstance(data.get("set"), list):
            elements: list[Any] = data["set"]
            return elements
        raise NotUnderstood(f"not a set: {str(data)[:120]}")

    def _region(self, right: Any, which: int) -> Region:
        if (isinstance(right, str) and right.startswith("@")) or (isinstance(right, dict) and "set" in right):
            return region_of(pair for element in self._elements(right) for pair in self._ranges(element, which))
        if isinstance(right, list):
            return region_of(pair for element in right for pair in self._ranges(element, which))
        return region_of(self._ranges(right, which))

    def _ranges(self, value: Any, which: int) -> list[tuple[int, int]]:
        """One element as ranges of numbers. Raises ``NotUnderstood``."""
        if isinstance(value, dict):
            if "elem" in value:
                return self._ranges(value["elem"]["val"], which)
            if "prefix" in value and which == DADDR:
                return [network_range(f"{value['prefix']['addr']}/{value['prefix']['len']}", self.family)]
            if "range" in value:
                low, high = (self._number(end, which) for end in value["range"])
                return [(low, high)]
            raise NotUnderstood(f"value {str(value)[:120]}")
        number = self._number(value, which)
        return [(number, number)]

    def _number(self, value: Any, which: int) -> int:
        if which == DADDR and isinstance(value, str):
            return address_number(value, self.family)
        if which == PROTO and value in PROTOCOLS:
            return PROTOCOLS[value]
        if which != DADDR and type(value) is int and 0 <= value <= largest(which, self.family):
            return value
        raise NotUnderstood(f"value {str(value)[:120]}")

    def _lookup(self, fields: tuple[int | None, ...], data: Any, is_map: bool, is_address: bool = False) -> Lookup:
        """``data`` as a lookup: each row leads to its verdict, its translation, or (a set) the rest of the rule."""
        if self._is_dynamic(data):
            raise NotUnderstood(f"packets change {data}: a dump tells only what was")
        name = data[1:] if isinstance(data, str) and data.startswith("@") else ""
        known = self._rows.get((name, fields, is_address)) if name else None
        if known is not None:
            return known
        exact: dict[tuple[int, ...], tuple[Step, ...]] = {}
        ranged: list[Row] = []
        for element in self._elements(data):
            key, value = element if is_map else (element, None)
            outcome = self._outcome(value, is_address) if is_map else ()
            numbers = self._exact(key, fields)
            if numbers is not None:
                exact[numbers] = outcome
                continue
            columns = self._columns(key, fields)
            points = tuple(the_point(column) for column in columns)
            if None in points:
                ranged.append((columns, outcome))
            else:
                exact[points] = outcome  # type: ignore[index]
        ranged.sort(key=lambda row: all(column is None for column in row[0]))
        lookup = Lookup(name, fields, exact, tuple(ranged))
        if name:
            self._rows[name, fields, is_address] = lookup
        return lookup

    def _outcome(self, value: Any, is_address: bool) -> tuple[Step, ...]:
        try:
            return (Dnat((self._target(value, None),)),) if is_address else _verdict(value)
        except (NotUnderstood, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            return (Opaque(f"{error}: map element {str(value)[:120]}"),)

    def _exact(self, key: Any, fields: tuple[int | None, ...]) -> tuple[int, ...] | None:
        """The single values of a plain key, None for any other: nine of ten elements are plain, this is their way."""
        parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
        if len(parts) != len(fields) or key == "*":
            return None
        numbers = []
        for which, part in zip(fields, parts, strict=True):
            if which is None or not isinstance(part, str | int):
                return None
            numbers.append(self._number(part, which))
        return tuple(numbers)

    def _columns(self, key: Any, fields: tuple[int | None, ...]) -> tuple[Region, ...]:
        if isinstance(key, dict) and "elem" in key:
            key = key["elem"]["val"]
        if key == "*":
            return (None,) * len(fields)
        parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
        if len(parts) != len(fields):
            raise NotUnderstood(f"{len(fields)} fields against {str(key)[:120]}")
        return tuple(
            None if which is None else region_of(self._ranges(part, which))
            for which, part in zip(fields, parts, strict=True)
        )


def _only_keys(given: dict[str, Any], *known: str) -> None:
    """A key that is not known may change what the others mean. Raises ``NotUnderstood``."""
    if not given.keys() <= set(known):
        raise NotUnderstood(f"not understood in {str(given)[:120]}")


def _compared(op: str, region: Region, highest: int) -> Region:
    if op == "!=":
        return complement(region, highest)
    value = the_point(region)
    if value is None or op not in ("<", ">", "<=", ">="):
        raise NotUnderstood(f"operator {op}")
    low, high = {"<": (0, value - 1), "<=": (0, value), ">": (value + 1, highest), ">=": (value, highest)}[op]
    return ((low, high),) if low <= high else NEVER


def _port(given: Any) -> int | None:
    """A port; 0 for one of several; None where the packet keeps its own."""
    if given is None:
        return None
    if type(given) is int and 0 < given <= 65535:
        return given
    if isinstance(given, dict) and "range" in given:
        return 0
    raise NotUnderstood(f"port {str(given)[:120]}")


def _verdict(given: Any) -> tuple[Step, ...]:
    if isinstance(given, dict) and len(given) == 1:
        (kind, more), = given.items()  # fmt: skip
        if kind in ("jump", "goto") and isinstance(more["target"], str):
            return (Verdict(kind, more["target"]),)
        if kind in ("accept", "drop", "return"):
            return (Verdict(kind),)
        if kind == "reject":
            return (Verdict("drop"),)
        if kind == "continue":
            return ()
    raise NotUnderstood(f"verdict {str(given)[:120]}")


def _certain(lookup: Lookup, key: Any, data: Any) -> Lookup:
    """``lookup``, certain to hit when its key is a random number and it has a row for each."""
    generator = key.get("numgen") if isinstance(key, dict) else None
    if generator is None or not isinstance(data, dict):
        return lookup
    _only_keys(generator, "mode", "mod", "offset")
    first, count = generator.get("offset", 0), generator["mod"]
    keys = {element[0] for element in data["set"] if type(element[0]) is int}
    is_certain = count > 0 and len(keys) >= count and keys.issuperset(range(first, first + count))
    return Lookup(lookup.name, lookup.fields, lookup.exact, lookup.ranged, is_certain)


def _whichever(lookup: Lookup) -> list[Step]:
    """A map of addresses by a random number as one translation to all of them."""
    targets: list[Target] = []
    for _, outcome in lookup.ranged:
        if not all(isinstance(step, Dnat) for step in outcome):
            return [lookup]
        targets += [target for step in outcome if isinstance(step, Dnat) for target in step.targets]
    if not targets or any(which is not None for which in lookup.fields):
        return [lookup]
    return [Dnat(tuple(targets))] if lookup.is_certain else [Maybe(), Dnat(tuple(targets))]


def rewrites(expression: Any) -> bool:
    """Whether a statement writes an address or a port into the packet itself: a translation without tracking."""
    if not isinstance(expression, dict) or not isinstance(expression.get("mangle"), dict):
        return False
    key = expression["mangle"].get("key")
    payload = key.get("payload") if isinstance(key, dict) else None
    return isinstance(payload, dict) and payload.get("field") not in (
        "saddr",
        "sport",
        "dscp",
        "ecn",
        "ttl",
        "hoplimit",
    )


def _mangle(given: Any) -> list[Step]:
    """A mark, or a field of the packet; ``nft.py`` reports destinations rewritten in any chain."""
    if (
        isinstance(given, dict)
        and isinstance(given.get("key"), dict)
        and {"meta", "ct", "payload"} & given["key"].keys()
    ):
        return []
    raise NotUnderstood(f"mangle {str(given)[:120]}")


def _xt(given: Any, is_last: bool) -> list[Step]:
    """An iptables expression in a table that iptables-nft owns; nft prints its name at most, never what it says."""
    if given is None:
        if is_last:
            raise NotUnderstood(f"an iptables expression that nft does not print: {READ_IPTABLES_SAVE}")
        return [Maybe()]
    kind, name = given.get("type"), given.get("name")
    if kind == "match":
        return [] if name == "comment" else [Maybe()]
    if kind == "target" and name in _XT_PASSING:
        return []
    if kind == "target" and name in ("MASQUERADE", "SNAT"):
        return [Verdict("accept")]
    raise NotUnderstood(f"iptables target {name}, which nft does not print: {READ_IPTABLES_SAVE}")
