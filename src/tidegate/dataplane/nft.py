"""nftables rule sets, ``nft -j list ruleset`` or ``nft list ruleset`` -> ``Facts``.

Every nat hook of every table is traced, not kube-proxy's alone: hostPorts, other proxies and the rules of a mode left
behind translate too. Names prove nothing: an emptied endpoint chain keeps the pod's address in its name for long.

Both layouts of kube-proxy are read by the same tracer: one ``dnat ... numgen ... map`` rule per Service (1.36), or a
chain per endpoint behind a verdict map (1.31 to 1.35, and ClientIP affinity).
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.dataplane.frontends import EVERYTHING, Asking, facts_of, service_of
from tidegate.dataplane.nftexpr import Lowering, NamedSet, rewrites
from tidegate.dataplane.nfttext import objects_of
from tidegate.dataplane.rules import PROTO, PROTOCOLS, Chain, Lookup, Maybe, Rule, Step, Table, Test, Verdict, point

SCHEMA = 1
Family = Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"]
_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
"""Those that translate, and for which packets."""
_TRANSLATING_HOOKS = ("prerouting", "output")
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    family: Family
    name: str
    handle: int = 0
    comment: str = ""
    flags: Any = None


class _Chain(msgspec.Struct, forbid_unknown_fields=True):
    family: Family
    table: str
    name: str
    type: Literal["", "filter", "nat", "route"] = ""
    hook: str = ""
    handle: int = 0
    prio: Any = None
    dev: Any = None
    policy: str = ""
    comment: str = ""

    def __post_init__(self) -> None:
        if bool(self.type) != bool(self.hook):
            raise ValueError(f"chain {self.name} has a type and no hook, or a hook and no type")


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    family: Family
    table: str
    chain: str
    expr: msgspec.Raw
    handle: int = 0
    index: int = 0
    comment: str = ""


class _Set(
    msgspec.Struct, forbid_unknown_fields=True, rename={"auto_merge": "auto-merge", "gc_interval": "gc-interval"}
):
    """A set, a map, or more elements of one. Were an unknown field let pass, a misspelt ``elem`` would empty it."""

    family: Family
    table: str
    name: str
    elem: list[Any] = []
    flags: list[str] | str = []
    type: Any = None
    map: Any = None
    handle: int = 0
    policy: Any = None
    size: Any = None
    timeout: Any = None
    gc_interval: Any = None
    auto_merge: Any = None
    stmt: Any = None
    comment: str = ""
    desc: Any = None
    count: Any = None


class _Metainfo(msgspec.Struct):
    json_schema_version: int
    version: str = ""


class _Object(msgspec.Struct, forbid_unknown_fields=True):
    """One of these; what no route depends on is taken as it comes."""

    metainfo: _Metainfo | None = None
    table: _Table | None = None
    chain: _Chain | None = None
    rule: _Rule | None = None
    set: _Set | None = None
    map: _Set | None = None
    element: _Set | None = None
    flowtable: Any = None
    counter: Any = None
    quota: Any = None
    limit: Any = None
    secmark: Any = None
    synproxy: Any = None
    tunnel: Any = None
    ct_helper: Any = msgspec.field(default=None, name="ct helper")
    ct_timeout: Any = msgspec.field(default=None, name="ct timeout")
    ct_expectation: Any = msgspec.field(default=None, name="ct expectation")


class _Ruleset(msgspec.Struct, forbid_unknown_fields=True):
    nftables: list[_Object]


_DECODER = msgspec.json.Decoder(_Ruleset)


def parse(dump: str | bytes, source: str = "", asking: Asking = EVERYTHING) -> Facts:
    """Facts from ``nft -j list ruleset`` (or ``list table``). Never raises."""
    try:
        return _understand(_DECODER.decode(dump).nftables, source, asking)
    except (msgspec.DecodeError, UnicodeError, ValueError, RecursionError) as error:
        return _garbage(source, error)


def parse_text(dump: str, source: str = "", asking: Asking = EVERYTHING) -> Facts:
    """Facts from ``nft list ruleset`` without ``-j``. Never raises."""
    try:
        objects = msgspec.json.encode({"nftables": objects_of(dump)})
        return _understand(_DECODER.decode(objects).nftables, source, asking)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return _garbage(source, error)


def _garbage(source: str, error: Exception) -> Facts:
    return Facts(source, "nft", unreadable=(Unreadable(f"not a rule set of nft: {error}"),))


class _Content:
    """One table as it stands in the dump."""

    def __init__(self, family: str, name: str) -> None:
        self.family = family
        self.name = name
        self.chains: dict[str, tuple[_Chain, list[_Rule]]] = {}
        self.sets: dict[str, NamedSet] = {}
        self.is_declared = False

    @property
    def where(self) -> str:
        return f"{self.family} {self.name}"


def _understand(objects: list[_Object], source: str, asking: Asking) -> Facts:
    if not objects or objects[0].metainfo is None:
        raise ValueError("it does not begin with metainfo")
    metainfo = objects[0].metainfo
    if metainfo.json_schema_version != SCHEMA:
        raise ValueError(f"JSON schema {metainfo.json_schema_version}, only {SCHEMA} is understood")
    tables = _tables(objects)
    unreadable: list[Unreadable] = []
    traced: list[Table] = []
    for table in tables.values():
        if not table.is_declared and asking.services is None:
            unreadable.append(Unreadable("only a part of it is in the dump", f"table {table.where}"))
        if table.where in asking.elsewhere:
            continue
        unreadable += _untracked(table)
        for family in _FAMILIES.get(table.family, ()):
            traced.append(_traced(table, family, asking))
    return facts_of(source, f"nft {metainfo.version}".strip(), traced, asking, tuple(unreadable))


def _tables(objects: list[_Object]) -> dict[tuple[str, str], _Content]:
    """The objects by table. Raises ``ValueError`` for what stands twice, or in no table or chain."""
    tables: dict[tuple[str, str], _Content] = {}

    def table_of(family: str, name: str) -> _Content:
        return tables.setdefault((family, name), _Content(family, name))

    for one in objects:
        if one.rule is not None:
            table = table_of(one.rule.family, one.rule.table)
            if one.rule.chain not in table.chains:
                raise ValueError(f"a rule of chain {one.rule.chain} in table {table.where}, which has no such chain")
            table.chains[one.rule.chain][1].append(one.rule)
        elif one.chain is not None:
            table = table_of(one.chain.family, one.chain.table)
            if one.chain.name in table.chains:
                raise ValueError(f"chain {one.chain.name} stands twice in table {table.where}")
            table.chains[one.chain.name] = (one.chain, [])
        elif (named := one.set or one.map) is not None:
            table = table_of(named.family, named.table)
            if named.name in table.sets:
                raise ValueError(f"set {named.name} stands twice in table {table.where}")
            flags = [named.flags] if isinstance(named.flags, str) else named.flags
            is_dynamic = "dynamic" in flags or "timeout" in flags
            table.sets[named.name] = NamedSet(named.name, list(named.elem), is_dynamic)
        elif one.element is not None:
            table = table_of(one.element.family, one.element.table)
            if one.element.name not in table.sets:
                raise ValueError(f"elements of {one.element.name} in table {table.where}, which has no such set")
            table.sets[one.element.name].elements.extend(one.element.elem)
        elif one.table is not None:
            table = table_of(one.table.family, one.table.name)
            if table.is_declared:
                raise ValueError(f"table {table.where} stands twice")
            table.is_declared = True
    return tables


def _untracked(table: _Content) -> list[Unreadable]:
    """Rules outside of nat that write another destination into packets, tracked by nobody."""
    return [
        Unreadable("rewrites packets without tracking them", _where(table, rule))
        for _, rules in table.chains.values()
        for rule in rules
        if b'"mangle"' in bytes(rule.expr) and any(map(rewrites, _expressions(rule.expr)))
    ]


def _expressions(raw: msgspec.Raw | bytes) -> list[Any]:
    return msgspec.json.decode(raw, type=list[Any])


class _Elsewhere:
    """The rules that, whatever else they do, send packets away from everything asked about.

    Known by their text, so that they need not be decoded: of 10,000 Services, all but the pod's own. A rule is one
    only when all of it is of this shape, and no address in it is asked about or may be a fence's.
    """

    def __init__(self, asking: Asking, family: int) -> None:
        self._wanted = None
        if asking.endpoints is not None and family == 4:
            addresses = [f'"{one.address}"' for one in asking.endpoints]
            self._wanted = [text.encode() for text in (*addresses, '"198.18.', '"198.19.')]

    def steps(self, raw: bytes) -> tuple[Step, ...] | None:
        """What such a rule comes down to, None for any other."""
        if self._wanted is None or any(text in raw for text in self._wanted):
            return None
        found = _PLAIN.fullmatch(raw)
        if found is None:
            return None
        is_certain = found["mod"] is None or int(found["mod"]) <= raw.count(b'"concat"')
        steps = _SENT_AWAY[found["protocol"]]
        return steps if is_certain else (steps[0], Maybe(), steps[1])


_ADDRESS = r'"(?:[1-9]\d{0,2})\.\d{1,3}\.\d{1,3}\.\d{1,3}"'
_NUMBER = r"[1-9]\d{0,4}"
_ROW = r'\[\d{1,5}, \{"concat": \[' + _ADDRESS + ", " + _NUMBER + r"\]\}\]"
_PLAIN = re.compile(
    (
        r'\[\{"match": \{"op": "==", "left": \{"meta": \{"key": "l4proto"\}\}, '
        r'"right": "(?P<protocol>tcp|udp|sctp)"\}\}, '
        r'\{"dnat": (?:\{"family": "ip", "addr": \{"map": \{"key": '
        r'\{"numgen": \{"mode": "random", "mod": (?P<mod>\d{1,5}), '
        r'"offset": 0\}\}, "data": \{"set": \[' + _ROW + "(?:, " + _ROW + r")*\]\}\}\}\}|"
        r'\{"addr": ' + _ADDRESS + r', "port": ' + _NUMBER + r"\})\}\]"
    )
    .replace(", ", ", ?")
    .replace(": ", ": ?")
    .encode()
)
_SENT_AWAY = {
    name.encode(): (Test(PROTO, point(PROTOCOLS[name])), Verdict("accept")) for name in ("tcp", "udp", "sctp")
}


def _where(table: _Content, rule: _Rule) -> str:
    return f"table {table.where}, chain {rule.chain}, handle {rule.handle}"


def _traced(table: _Content, family: int, asking: Asking) -> Table:
    """The chains that a nat hook of ``table`` can lead to, in the tracer's shape."""
    lowering = Lowering(family, table.sets)
    elsewhere = _Elsewhere(asking, family)
    traced = Table(table.where, family)
    waiting: list[str] = []
    for name, (chain, _) in table.chains.items():
        if chain.hook and chain.type == "nat" and (chain.hook in _TRANSLATING_HOOKS or chain.hook not in _HOOKS):
            traced.chains[name] = Chain(name, hook=chain.hook)
            waiting.append(name)
    while waiting:
        name = waiting.pop()
        chain_rules = traced.chains[name].rules
        for raw in table.chains[name][1] if name in table.chains else ():
            text = bytes(raw.expr)
            steps = elsewhere.steps(text) or lowering.steps_of(_expressions(text))
            rule = Rule(_where(table, raw), steps, raw.comment)
            if rule.is_inert:
                continue
            chain_rules.append(rule)
            for target in _targets(rule.steps):
                if target not in traced.chains and (target in table.chains or _is_vouched(target, asking)):
                    traced.chains[target] = Chain(target)
                    waiting.append(target)
    return traced


def _is_vouched(chain: str, asking: Asking) -> bool:
    """Whether a chain that the dump leaves out is one of a Service that the asker did not ask for."""
    service = service_of(chain).partition(":")[0]
    return asking.services is not None and bool(service) and service not in asking.services


def _targets(steps: tuple[Step, ...]) -> list[str]:
    found: list[str] = []
    for step in steps:
        if isinstance(step, Verdict) and step.target:
            found.append(step.target)
        elif isinstance(step, Lookup):
            for outcome in step.exact.values():
                found += _targets(outcome)
            for _, outcome in step.ranged:
                found += _targets(outcome)
    return found
