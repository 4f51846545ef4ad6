"""``nft list ruleset`` as people see it -> the objects of ``nft -j``, for ``nft.py`` to read.

Only what stands in nat rules is understood; the rest of a rule that begins with something else becomes one unknown
expression. White space counts: nft 1.0 prints an iptables-nft comment, match or target as nothing at all, and the gap
it leaves is the only sign of it (seen with nft 1.0.6: ``meta l4proto tcp   counter packets 0 bytes 0 `` is a DNAT).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]|[;,](?=\s|$)|[^\s{},;"]+(?:[,;](?!\s|$)[^\s{},;"]*)*')
_TABLE = re.compile(r"table (ip|ip6|inet|arp|bridge|netdev) (\S+) \{(?: # handle (\d+))?")
_BLOCK = re.compile(r"(chain|set|map|flowtable|counter|quota|limit|ct helper|ct timeout|ct expectation|secmark|synproxy"
                    r"|tunnel) (\S+) \{(?: # handle (\d+))?")  # fmt: skip
_HOOK = re.compile(r"type (\w+) hook (\w+)(?: devices? .*?)? priority [^;]*;(?: policy (\w+);)?")
_HANDLE = re.compile(r" # handle (\d+)$")
_COMPARISONS = ("==", "!=", "<", ">", "<=", ">=")
_PAYLOADS = frozenset([
    "ip", "ip6", "tcp", "udp", "sctp", "dccp", "udplite", "th", "ether", "vlan", "icmp", "icmpv6", "esp", "ah",
    "comp", "igmp",
])  # fmt: skip
_BARE_META = frozenset([
    "iif", "oif", "iifname", "oifname", "iiftype", "oiftype", "iifgroup", "oifgroup", "skuid", "skgid", "mark",
    "cpu", "pkttype",
])  # fmt: skip
_COMMENT = re.compile(r'comment "[^"]*"')
_FLAGS = re.compile(r"flags ((?:constant|dynamic|interval|timeout|dormant|owner|persist|,)+)")
_PROPERTY = re.compile(
    r"(?:type|typeof|timeout|gc-interval|size|policy|auto-merge|counter|quota|limit)(?: [^{}=\"	]*)?"
)
_WORDS = frozenset(["accept", "drop", "return", "continue"])

Json = dict[str, Any]


class Unreadable(ValueError):
    """The text is not nft's, or is cut short. The message says where."""


def objects_of(text: str) -> list[Json]:
    """The rule set's objects, with a metainfo first as ``nft -j`` prints it. Raises ``Unreadable``."""
    objects: list[Json] = [{"metainfo": {"json_schema_version": 1}}]
    lines = _Lines(text)
    rules: list[Json] = []
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        found = _TABLE.fullmatch(line.rstrip())
        if not found:
            raise Unreadable(f"line {lines.number}: not a table: {line.strip()[:80]!r}")
        table = {"family": found[1], "table": found[2]}
        objects.append({"table": {"family": found[1], "name": found[2]}})
        _table(lines, table, objects, rules)
    if len(objects) == 1:
        raise Unreadable("there is no table in it")
    return objects + rules


class _Lines:
    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.number >= len(self._lines):
            raise StopIteration
        self.number += 1
        return self._lines[self.number - 1]

    def block(self) -> Iterator[str]:
        """The lines up to the ``}`` of the block that has begun. Raises ``Unreadable`` when there is none."""
        begun = self.number
        for line in self:
            if line.strip() == "}":
                return
            yield line
        raise Unreadable(f"line {begun}: the block that begins here has no end")


def _table(lines: _Lines, table: Json, objects: list[Json], rules: list[Json]) -> None:
    for line in lines.block():
        text = line.strip()
        if not text or _COMMENT.fullmatch(text) or _FLAGS.fullmatch(text):
            continue
        found = _BLOCK.fullmatch(text)
        if not found:
            raise Unreadable(f"line {lines.number}: not understood in table {table['table']}: {text[:80]!r}")
        named = {**table, "name": found[2]}
        if found[1] == "chain":
            _chain(lines, named, objects, rules)
        elif found[1] in ("set", "map"):
            objects.append({found[1]: {**named, **_set(lines, found[1])}})
        else:
            for _ in lines.block():
                pass


def _chain(lines: _Lines, named: Json, objects: list[Json], rules: list[Json]) -> None:
    chain = dict(named)
    objects.append({"chain": chain})
    for line in lines.block():
        text = line.strip()
        if not text or _COMMENT.fullmatch(text):
            continue
        hook = _HOOK.fullmatch(text)
        if hook:
            chain.update(type=hook[1], hook=hook[2])
            continue
        if text.startswith("type ") or ";" in re.sub(r'"[^"]*"', "", text):
            raise Unreadable(f"line {lines.number}: not a hook: {text[:80]!r}")
        rule = {"family": named["family"], "table": named["table"], "chain": named["name"], "handle": lines.number}
        handle = _HANDLE.search(text)
        if handle:
            rule["handle"] = int(handle[1])
        # A dump is indented by tabs: whatever else is between the words was once an expression.
        raw = _HANDLE.sub("", line.lstrip("\t").rstrip("\r\n"))
        rules.append({"rule": {**rule, **_rule(raw)}})


def _set(lines: _Lines, kind: str) -> Json:
    """The elements and the flags of a set or a map."""
    found: Json = {"elem": [], "flags": []}
    elements: list[str] = []
    for line in lines.block():
        text = line.strip()
        if elements or text.startswith("elements = "):
            elements.append(text.removeprefix("elements = "))
        elif flags := _FLAGS.fullmatch(text):
            found["flags"] = flags[1].split(",")
        elif text and not _COMMENT.fullmatch(text) and not _PROPERTY.fullmatch(text):
            raise Unreadable(f"line {lines.number}: not understood in {kind}: {text[:80]!r}")
    if elements:
        words = _Words(_split(" ".join(elements)))
        found["elem"] = _elements(words, is_map=kind == "map")
        if words.more():
            raise Unreadable(f"line {lines.number}: after the elements: {words.rest()[:80]!r}")
    return found


def _split(text: str) -> list[str]:
    words, at = [], 0
    for found in _TOKEN.finditer(text):
        if text[at : found.start()].strip():
            raise Unreadable(f"not understood: {text[at : found.start()].strip()[:80]!r}")
        words.append(found[0])
        at = found.end()
    if text[at:].strip():
        raise Unreadable(f"not understood: {text[at:].strip()[:80]!r}")
    return words


class _Words:
    """A row of words, read from the left."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0

    def more(self) -> bool:
        return self._at < len(self._words)

    def peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._words[at] if at < len(self._words) else ""

    def next(self) -> str:
        word = self.peek()
        if not word:
            raise Unreadable("a rule that ends too early")
        self._at += 1
        return word

    def take(self, *words: str) -> bool:
        """Read these words if they come next."""
        if any(self.peek(ahead) != word for ahead, word in enumerate(words)):
            return False
        self._at += len(words)
        return True

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise Unreadable(f"{word!r} expected, not {self.peek()!r}")

    def rest(self) -> str:
        rest = " ".join(self._words[self._at :])
        self._at = len(self._words)
        return rest


def _elements(words: _Words, is_map: bool) -> list[Any]:
    """``{ a . b : value, ... }``."""
    words.expect("{")
    found: list[Any] = []
    while not words.take("}"):
        key = _key(words)
        if is_map:
            words.expect(":")
            found.append([key, _mapped(words)])
        else:
            found.append(key)
        if not words.take(","):
            words.expect("}")
            break
    return found


def _key(words: _Words) -> Any:
    parts = [_value(words.next())]
    while words.take("."):
        parts.append(_value(words.next()))
    while words.peek() in ("timeout", "expires", "counter", "comment"):  # an element's own properties
        if words.next() == "counter":
            words.next(), words.next(), words.next(), words.next()
        else:
            words.next()
    return {"concat": parts} if len(parts) > 1 else parts[0]


def _mapped(words: _Words) -> Any:
    """A map's value: a verdict, or an address with or without a port."""
    word = words.next()
    if word in ("jump", "goto"):
        return {word: {"target": words.next()}}
    if word in _WORDS:
        return {word: None}
    parts = [_value(word)]
    while words.take("."):
        parts.append(_value(words.next()))
    return {"concat": parts} if len(parts) > 1 else parts[0]


def _value(word: str) -> Any:
    """A word as ``nft -j`` gives it: a number, a network, a range, or the word itself."""
    if word.startswith('"'):
        return word[1:-1]
    if word.isascii() and word.isdigit():
        return int(word)
    if re.fullmatch(r"0x[0-9a-f]+", word):
        return int(word, 16)
    network = re.fullmatch(r"([0-9a-f.:]+)/(\d+)", word)
    if network:
        return {"prefix": {"addr": network[1], "len": int(network[2])}}
    ends = re.fullmatch(r"([0-9a-f.:]+)-([0-9a-f.:]+)", word)
    if ends:
        return {"range": [_value(ends[1]), _value(ends[2])]}
    if not re.fullmatch(r"[\w.:*@/-]+", word):
        raise Unreadable(f"not a value: {word!r}")
    return word


def _rule(raw: str) -> Json:
    """The expressions of one line, and its comment."""
    expressions, comment = _statements(raw)
    bare = re.sub(r'"[^"]*"', '""', raw)
    if bare.startswith(" ") or "  " in bare.strip():
        expressions.insert(0, {"xt": None})
    if bare.endswith(" ") or not expressions or "counter" in expressions[-1]:
        # In text a rule that only counts looks like one whose target was not printed.
        expressions.append({"xt": None})
    return {"expr": expressions, "comment": comment}


def _statements(raw: str) -> tuple[list[Any], str]:
    expressions: list[Any] = []
    comment = ""
    words = _Words([])
    try:
        if "\t" in raw:
            raise Unreadable("two lines in one")
        words = _Words(_split(raw))
        while words.more():
            if words.take("comment"):
                comment = str(_value_of_text(words.next()))
            else:
                expressions.append(_statement(words))
    except Unreadable as error:
        expressions.append({"text": f"{raw.strip()[:120]!r}: {error}"})
    return expressions, comment


def _value_of_text(word: str) -> str:
    return word[1:-1] if word.startswith('"') and word.endswith('"') else word


def _statement(words: _Words) -> Json:
    word = words.peek()
    if word in ("jump", "goto"):
        words.next()
        return {word: {"target": words.next()}}
    if word in _WORDS:
        words.next()
        return {word: None}
    reader = _STATEMENTS.get(word)
    if reader is not None:
        words.next()
        return reader(words)
    if words.take("xt", "match"):
        return {"xt": {"type": "match", "name": _value_of_text(words.next())}}
    if words.take("xt", "target"):
        return {"xt": {"type": "target", "name": _value_of_text(words.next())}}
    return _match(words)


def _counter(words: _Words) -> Json:
    if words.take("packets"):
        words.next()
        words.expect("bytes")
        words.next()
    return {"counter": None}


def _reject(words: _Words) -> Json:
    if words.take("with"):
        while words.more() and words.peek() != "comment":
            words.next()
    return {"reject": None}


def _flags(words: _Words) -> None:
    while words.peek().strip(",") in ("random", "fully-random", "persistent", "random,persistent", ","):
        words.next()


def _masquerade(words: _Words) -> Json:
    if words.take("to"):
        words.next()
    _flags(words)
    return {"masquerade": None}


def _snat(words: _Words) -> Json:
    words.rest()
    return {"snat": None}


def _dnat(words: _Words) -> Json:
    found: Json = {}
    if words.peek() in ("ip", "ip6"):
        found["family"] = words.next()
    words.expect("to")
    if words.peek() in ("numgen", "jhash", "symhash") or _is_selector(words):
        key = _selectors(words)
        words.expect("map")
        found["addr"] = {"map": {"key": key, "data": _set_or_name(words, is_map=True)}}
    else:
        found |= _address_and_port(words.next())
    _flags(words)
    return {"dnat": found}


def _redirect(words: _Words) -> Json:
    found: Json = {}
    if words.take("to"):
        found = _address_and_port(words.next())
        if "addr" in found or "port" not in found:
            raise Unreadable("a redirect to something else than a port")
    _flags(words)
    return {"redirect": found}


def _address_and_port(word: str) -> Json:
    """``10.0.0.1:80``, ``[fd00::1]:80``, ``10.0.0.1-10.0.0.9:80``, ``:80`` or an address."""
    if word.startswith("["):
        address, _, port = word[1:].partition("]")
        port = port.removeprefix(":")
    elif word.count(":") > 1:
        address, port = word, ""
    else:
        address, _, port = word.partition(":")
    found: Json = {"addr": _value(address)} if address else {}
    if port:
        found["port"] = _value(port)
    return found


def _set_statement(words: _Words) -> Json:
    """``@name { ip saddr timeout 3h }``, after ``add`` or ``update``."""
    name = words.next()
    if not name.startswith("@"):
        raise Unreadable(f"a set expected, not {name!r}")
    words.expect("{")
    while not words.take("}"):
        if words.next() == "{":
            raise Unreadable("a set within a set")
    return {"set": {"set": name}}


def _log(words: _Words) -> Json:
    while words.peek() in ("prefix", "level", "group", "snaplen", "queue-threshold", "flags"):
        words.next()
        words.next()
    return {"log": None}


def _limit(words: _Words) -> Json:
    words.expect("rate")
    words.take("over")
    words.next()
    if words.peek().startswith(("bytes/", "kbytes/", "mbytes/")):
        words.next()
    if words.take("burst"):
        words.next()
        words.next()
    return {"limit": None}


_STATEMENTS: dict[str, Callable[[_Words], Json]] = {
    "counter": _counter,
    "reject": _reject,
    "masquerade": _masquerade,
    "snat": _snat,
    "dnat": _dnat,
    "redirect": _redirect,
    "add": _set_statement,
    "update": _set_statement,
    "log": _log,
    "limit": _limit,
    "notrack": lambda words: {"notrack": None},
}


def _is_selector(words: _Words) -> bool:
    return words.peek() in _PAYLOADS | _BARE_META | {"meta", "ct", "fib", "numgen", "jhash", "symhash"}


def _match(words: _Words) -> Json:
    """A test, a verdict map, or ``meta mark set``."""
    if not _is_selector(words):
        raise Unreadable(f"{words.peek()!r}")
    left = _selectors(words)
    if words.take("set"):
        return _assignment(left, words)
    if words.take("vmap"):
        return {"vmap": {"key": left, "data": _set_or_name(words, is_map=True)}}
    if words.peek() in ("&", "|", "^", "and", "or", "xor"):
        operator = {"and": "&", "or": "|", "xor": "^"}.get(words.peek(), words.peek())
        words.next()
        left = {operator: [left, _value(words.next())]}
    op = words.next() if words.peek() in _COMPARISONS else "=="
    return {"match": {"op": op, "left": left, "right": _right(words)}}


def _assignment(left: Any, words: _Words) -> Json:
    """``meta mark set meta mark | 0x4000``, ``... set mark or 0x4000``, ``... set 0x1``."""
    if _is_selector(words):
        _selectors(words)
        if words.peek() in ("|", "&", "^", "or", "and", "xor"):
            words.next()
            words.next()
    else:
        words.next()
    return {"mangle": {"key": left, "value": None}}


def _right(words: _Words) -> Any:
    if words.peek() == "{":
        return {"set": _elements(words, is_map=False)}
    if words.peek().startswith("@"):
        return words.next()
    parts = [word for word in words.next().split(",") if word]
    if len(parts) > 1:
        return [_value(part) for part in parts]
    value = _value(parts[0]) if parts else ""
    if words.peek() != ".":
        return value
    concat = [value]
    while words.take("."):
        concat.append(_value(words.next()))
    return {"concat": concat}


def _set_or_name(words: _Words, is_map: bool) -> Any:
    if words.peek().startswith("@"):
        return words.next()
    return {"set": _elements(words, is_map)}


def _selectors(words: _Words) -> Any:
    parts = [_selector(words)]
    while words.take("."):
        parts.append(_selector(words))
    return {"concat": parts} if len(parts) > 1 else parts[0]


def _selector(words: _Words) -> Json:
    word = words.next()
    if word == "meta":
        return {"meta": {"key": words.next()}}
    if word in _BARE_META:
        return {"meta": {"key": word}}
    if word == "ct":
        key = words.next()
        if key in ("original", "reply"):
            key = words.next()
            key = words.next() if key in ("ip", "ip6") else key
        return {"ct": {"key": key}}
    if word == "fib":
        while words.peek() not in ("type", "oif", "oifname", ""):
            words.next()
        return {"fib": {"result": words.next()}}
    if word == "numgen":
        mode = words.next()
        words.expect("mod")
        count = int(words.next())
        offset = int(words.next()) if words.take("offset") else 0
        return {"numgen": {"mode": mode, "mod": count, "offset": offset}}
    if word in _PAYLOADS:
        return {"payload": {"protocol": word, "field": words.next()}}
    raise Unreadable(f"{word!r}")
