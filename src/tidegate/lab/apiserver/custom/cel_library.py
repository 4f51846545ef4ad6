"""The functions Kubernetes adds to CEL (apiserver pkg/cel/library, environment/base.go), as far as the lab has them.

What is not here does not compile, so a definition that needs it is refused by name: format.named, authorizer,
two-variable macros, ``sortBy``, and list's ``indexOf`` (the library's own is the string's).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tidegate.lab.apiserver.custom.formats import compiled
from tidegate.lab.apiserver.schema.quantity import parse

BOOL, INT, DOUBLE, STRING, DYN = cel.Type.BOOL, cel.Type.INT, cel.Type.DOUBLE, cel.Type.STRING, cel.Type.DYN
STRINGS, LIST = cel.Type.List(STRING), cel.Type.List(DYN)

_OPAQUE = ("Quantity", "URL", "IP", "CIDR", "Semver")


def _file() -> Any:
    proto = descriptor_pb2.FileDescriptorProto(name="kubernetes.proto", package="kubernetes", syntax="proto3")
    for name in _OPAQUE:
        message = proto.message_type.add(name=name)
        message.field.add(name="text", number=1, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING, label=1)
    return proto


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
_makers = {name: message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"kubernetes.{name}")) for name in _OPAQUE}
QUANTITY, URL, IP, CIDR, SEMVER = (cel.Type(f"kubernetes.{name}") for name in _OPAQUE)


def _made(name: str, text: str) -> Any:
    return _makers[name](text=text)


# -- quantities


def _quantity(text: str) -> Any:
    return _made("Quantity", str(Fraction(parse(text))))


def _value(quantity: Any) -> Fraction:
    return Fraction(quantity.text)


def _is(check: Callable[[str], Any]) -> Callable[[str], bool]:
    def asked(text: str) -> bool:
        try:
            check(text)
        except (ValueError, ArithmeticError):
            return False
        return True

    return asked


def _compare(one: Any, two: Any) -> int:
    measure: Callable[[Any], Any] = _value if isinstance(one, _makers["Quantity"]) else _order
    left, right = measure(one), measure(two)
    return int(left > right) - int(left < right)


def _sum_of(one: Any, two: Any) -> Any:
    other = Fraction(two) if isinstance(two, int) else _value(two)
    return _made("Quantity", str(_value(one) + other))


def _less(one: Any, two: Any) -> Any:
    other = Fraction(two) if isinstance(two, int) else _value(two)
    return _made("Quantity", str(_value(one) - other))


def _whole(quantity: Any) -> int:
    value = _value(quantity)
    if value.denominator != 1:
        raise ValueError("cannot convert value to integer")
    return int(value)


# -- URLs, addresses, versions


def _url(text: str) -> Any:
    found = urlsplit(text)
    if not (text.startswith("/") or found.scheme) or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    _ = found.port
    return _made("URL", text)


def _host(url: Any) -> str:
    return str(urlsplit(url.text).netloc).rpartition("@")[2]


def _ip(text: str) -> Any:
    try:
        found = ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError(f'IP Address "{text}" parse error during conversion from string: {error}') from None
    if "%" in text:
        raise ValueError("IP address with zone value is not allowed")
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        raise ValueError("IPv4-mapped IPv6 address is not allowed")
    return _made("IP", str(found))


def _cidr(text: str) -> Any:
    try:
        if "/" not in text:
            raise ValueError("no '/'")
        return _made("CIDR", str(ipaddress.ip_interface(text)))
    except ValueError as error:
        why = f"network address parse error during conversion from string: {error}"
        raise ValueError(why) from None


def _network(cidr: Any) -> Any:
    return ipaddress.ip_interface(cidr.text).network


def _contains_ip(cidr: Any, found: Any) -> bool:
    try:
        return ipaddress.ip_address(found if isinstance(found, str) else found.text) in _network(cidr)
    except ValueError:
        raise ValueError("no such overload") from None


def _contains_cidr(cidr: Any, found: Any) -> bool:
    try:
        other = _network(_cidr(found) if isinstance(found, str) else found)
    except ValueError:
        raise ValueError("no such overload") from None
    network = _network(cidr)
    return bool(other.version == network.version and other.subnet_of(network))


_SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")


def _semver(text: str) -> Any:
    if _SEMVER.fullmatch(text) is None:
        raise ValueError("No Major.Minor.Patch elements found")
    return _made("Semver", text)


def _order(version: Any) -> tuple[Any, ...]:
    found = _SEMVER.fullmatch(version.text)
    assert found is not None
    parts = [
        (part.isdigit() is False, int(part) if part.isdigit() else 0, part) for part in (found[4] or "").split(".")
    ]
    return (int(found[1]), int(found[2]), int(found[3]), found[4] is None, parts)


# -- lists


def _flat(items: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise ValueError("level must be non-negative")
    found: list[Any] = []
    for item in items:
        found += _flat(item, depth - 1) if isinstance(item, list) and depth else [item]
    return found


def _slice(items: list[Any], first: int, last: int) -> list[Any]:
    if not 0 <= first <= last <= len(items):
        raise ValueError(f"cannot slice({first}, {last}), index out of bounds")
    return items[first:last]


def _distinct(items: list[Any]) -> list[Any]:
    return [item for at, item in enumerate(items) if item not in items[:at]]


def _extreme(items: list[Any], pick: Callable[[list[Any]], Any], name: str) -> Any:
    if not items:
        raise ValueError(f"{name} called on empty list")
    return pick(items)


def _is_sorted(items: list[Any]) -> bool:
    return all(one <= two for one, two in pairwise(items))


def _contains(items: list[Any], others: list[Any]) -> bool:
    return all(other in items for other in others)


def _found(text: str, pattern: str) -> str:
    hit = compiled(pattern).search(text)
    return hit[0] if hit else ""


def _all_found(text: str, pattern: str, limit: int = -1) -> list[str]:
    hits = [hit[0] for hit in compiled(pattern).finditer(text)]
    return hits if limit < 0 else hits[:limit]


Does = Callable[..., Any] | None
Overload = tuple[str, list[Any], Any, Does, bool]
"""Function, parameters, what it gives, what it does, and whether it is called on its first parameter.

At run time all messages are one type: of overloads that differ in theirs alone, the first does the others' work.
"""


def _on(name: str, parameters: list[Any], gives: Any, does: Does) -> Overload:
    return name, parameters, gives, does, True


def _of(name: str, parameters: list[Any], gives: Any, does: Does) -> Overload:
    return name, parameters, gives, does, False


_OVERLOADS: list[Overload] = [
    _of("isQuantity", [STRING], BOOL, _is(_quantity)),
    _of("quantity", [STRING], QUANTITY, _quantity),
    _on("isInteger", [QUANTITY], BOOL, lambda found: _value(found).denominator == 1),
    _on("asInteger", [QUANTITY], INT, _whole),
    _on("asApproximateFloat", [QUANTITY], DOUBLE, lambda found: float(_value(found))),
    _of("sign", [QUANTITY], INT, lambda found: (_value(found) > 0) - (_value(found) < 0)),
    _on("add", [QUANTITY, QUANTITY], QUANTITY, _sum_of),
    _on("add", [QUANTITY, INT], QUANTITY, _sum_of),
    _on("sub", [QUANTITY, QUANTITY], QUANTITY, _less),
    _on("sub", [QUANTITY, INT], QUANTITY, _less),
    _on("isGreaterThan", [QUANTITY, QUANTITY], BOOL, lambda one, two: _compare(one, two) > 0),
    _on("isLessThan", [QUANTITY, QUANTITY], BOOL, lambda one, two: _compare(one, two) < 0),
    _on("compareTo", [QUANTITY, QUANTITY], INT, _compare),
    _of("isURL", [STRING], BOOL, _is(_url)),
    _of("url", [STRING], URL, _url),
    _on("getScheme", [URL], STRING, lambda url: urlsplit(url.text).scheme),
    _on("getHost", [URL], STRING, _host),
    _on("getHostname", [URL], STRING, lambda url: urlsplit(url.text).hostname or ""),
    _on("getPort", [URL], STRING, lambda url: str(urlsplit(url.text).port or "")),
    _on("getEscapedPath", [URL], STRING, lambda url: urlsplit(url.text).path),
    _on("getQuery", [URL], cel.Type.Map(STRING, STRINGS), lambda url: parse_qs(urlsplit(url.text).query)),
    _of("isIP", [STRING], BOOL, _is(_ip)),
    _of("ip", [STRING], IP, _ip),
    _of("ip.isCanonical", [STRING], BOOL, lambda text: _ip(text).text == text),
    _on("family", [IP], INT, lambda found: ipaddress.ip_address(found.text).version),
    _on("isUnspecified", [IP], BOOL, lambda found: ipaddress.ip_address(found.text).is_unspecified),
    _on("isLoopback", [IP], BOOL, lambda found: ipaddress.ip_address(found.text).is_loopback),
    _of("isCIDR", [STRING], BOOL, _is(_cidr)),
    _of("cidr", [STRING], CIDR, _cidr),
    _on("containsIP", [CIDR, STRING], BOOL, _contains_ip),
    _on("containsIP", [CIDR, IP], BOOL, _contains_ip),
    _on("containsCIDR", [CIDR, STRING], BOOL, _contains_cidr),
    _on("containsCIDR", [CIDR, CIDR], BOOL, _contains_cidr),
    _on("prefixLength", [CIDR], INT, lambda found: _network(found).prefixlen),
    _on("masked", [CIDR], CIDR, lambda found: _made("CIDR", str(_network(found)))),
    _on("ip", [CIDR], IP, lambda found: _made("IP", str(ipaddress.ip_interface(found.text).ip))),
    _of("isSemver", [STRING], BOOL, _is(_semver)),
    _of("semver", [STRING], SEMVER, _semver),
    _on("major", [SEMVER], INT, lambda found: _order(found)[0]),
    _on("minor", [SEMVER], INT, lambda found: _order(found)[1]),
    _on("patch", [SEMVER], INT, lambda found: _order(found)[2]),
    _on("isGreaterThan", [SEMVER, SEMVER], BOOL, None),
    _on("isLessThan", [SEMVER, SEMVER], BOOL, None),
    _on("compareTo", [SEMVER, SEMVER], INT, None),
    _on("find", [STRING, STRING], STRING, _found),
    _on("findAll", [STRING, STRING], STRINGS, _all_found),
    _on("findAll", [STRING, STRING, INT], STRINGS, _all_found),
    _on("isSorted", [LIST], BOOL, _is_sorted),
    _on("sum", [LIST], DYN, sum),
    _on("min", [LIST], DYN, lambda items: _extreme(items, min, "min")),
    _on("max", [LIST], DYN, lambda items: _extreme(items, max, "max")),
    _on("distinct", [LIST], LIST, _distinct),
    _on("flatten", [LIST], LIST, _flat),
    _on("flatten", [LIST, INT], LIST, _flat),
    _on("slice", [LIST, INT, INT], LIST, _slice),
    _on("sort", [LIST], LIST, sorted),
    _of("lists.range", [INT], cel.Type.List(INT), lambda count: list(range(count))),
    _of("sets.contains", [LIST, LIST], BOOL, _contains),
    _of("sets.equivalent", [LIST, LIST], BOOL, lambda one, two: _contains(one, two) and _contains(two, one)),
    _of("sets.intersects", [LIST, LIST], BOOL, lambda one, two: any(item in one for item in two)),
]


@cache
def _declarations() -> list[Any]:
    grouped: dict[str, list[Any]] = {}
    for number, (name, parameters, gives, does, is_member) in enumerate(_OVERLOADS):
        made = cel.Overload(
            f"kubernetes_{number}", return_type=gives, parameters=parameters, is_member=is_member, impl=does
        )
        grouped.setdefault(name, []).append(made)
    return [cel.FunctionDecl(name, overloads) for name, overloads in grouped.items()]


def environment(variables: dict[str, Any], pool: Any = None) -> Any:
    """A CEL environment with Kubernetes' functions; ``pool`` has the messages that the variables are."""
    if pool is None:
        pool = _pool
    else:
        pool.Add(_file())
    extensions = [ext_strings.ExtStrings(), ext_optional.ExtOptional()]
    return cel.NewEnv(pool, variables=variables, extensions=extensions, functions=_declarations())
