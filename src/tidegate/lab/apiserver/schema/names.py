"""Which names, labels and keys are well formed (apimachinery/pkg/util/validation/validation.go).

Each function hands back the sentences of the real server; an empty list means well formed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_QUALIFIED_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_VALUE = f"({_QUALIFIED})?"
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_KEY = "[-._a-zA-Z0-9]+"
_KEY_TEXT = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_PERCENT = "[0-9]+%"
_PERCENT_TEXT = "a valid percent string must be a numeric string followed by an ending '%'"
_remembered = lru_cache(maxsize=4096)  # the same few words come again and again: half a Pod's validation
PORT_RANGE = "must be between 1 and 65535, inclusive"


def longer_than(limit: int, unit: str = "bytes") -> str:
    return f"must be no more than {limit} {unit}"


def shape(text: str, pattern: str, *examples: str) -> str:
    """The sentence about a pattern that did not match (RegexError)."""
    if not examples:
        return f"{text} (regex used for validation is '{pattern}')"
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {listed}regex used for validation is '{pattern}')"


def _check(value: str, pattern: str, limit: int, sentence: str, unit: str = "characters") -> Sequence[str]:
    found = [longer_than(limit, unit)] if limit and len(value.encode()) > limit else []
    return found if re.fullmatch(pattern, value) else [*found, sentence]


@_remembered
def dns_label(value: str) -> Sequence[str]:
    """RFC 1123 label: namespaces, containers, volumes."""
    return _check(value, _LABEL, 63, shape(_LABEL_TEXT, _LABEL, "my-name", "123-abc"))


_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character"
)


@_remembered
def dns_1035_label(value: str) -> Sequence[str]:
    """RFC 1035 label: the names and versions of custom kinds."""
    return _check(value, _LABEL_1035, 63, shape(_LABEL_1035_TEXT, _LABEL_1035, "my-name", "abc-123"))


@_remembered
def dns_subdomain(value: str) -> Sequence[str]:
    """RFC 1123 subdomain: most object names."""
    return _check(value, _SUBDOMAIN, 253, shape(_SUBDOMAIN_TEXT, _SUBDOMAIN, "example.com"))


def path_segment(value: str) -> Sequence[str]:
    """RBAC names: anything that is one segment of an URL path."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{bad}'" for bad in ("/", "%") if bad in value]


@_remembered
def qualified_name(value: str) -> Sequence[str]:
    """A label key: an optional DNS subdomain, a slash, a name."""
    prefix, slash, name = value.rpartition("/")
    if value.count("/") > 1:
        sentence = shape(f"a qualified name {_QUALIFIED_TEXT}", _QUALIFIED, "MyName", "my.name", "123-abc")
        return [sentence + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    found: list[str] = []
    if slash and not prefix:
        found.append("prefix part must be non-empty")
    elif slash:
        found += [f"prefix part {text}" for text in dns_subdomain(prefix)]
    if not name:
        found.append("name part must be non-empty")
    elif len(name) > 63:
        found.append(f"name part {longer_than(63)}")
    if not re.fullmatch(_QUALIFIED, name):
        found.append(f"name part {shape(_QUALIFIED_TEXT, _QUALIFIED, 'MyName', 'my.name', '123-abc')}")
    return found


@_remembered
def label_value(value: str) -> Sequence[str]:
    return _check(value, _VALUE, 63, shape(_VALUE_TEXT, _VALUE, "MyValue", "my_value", "12345"), "bytes")


def config_key(value: str) -> Sequence[str]:
    """A key of a ConfigMap or Secret."""
    found = _check(value, _KEY, 253, shape(_KEY_TEXT, _KEY, "key.name", "KEY_NAME", "key-name"))
    if value == ".":
        return [*found, "must not be '.'"]
    if value == "..":
        return [*found, "must not be '..'"]
    return [*found, "must not start with '..'"] if value.startswith("..") else found


def variable_name(value: str) -> Sequence[str]:
    """An environment variable's name, as relaxed in 1.34 (KEP 4369)."""
    if value and all(" " <= letter <= "~" and letter != "=" for letter in value):
        return []
    return [
        shape(
            "a valid environment variable name must consist only of printable ASCII characters other than '='",
            "^[ -<>-~]+$",
        )
    ]


def port_name(value: str) -> Sequence[str]:
    """An IANA service name (RFC 6335): how container ports are called."""
    found = []
    if len(value) > 15:
        found.append(longer_than(15, "characters"))
    if not re.fullmatch(r"[-a-z0-9]+", value):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", value):
        found.append("must contain at least one letter (a-z)")
    if "--" in value:
        found.append("must not contain consecutive hyphens")
    if value and (value.startswith("-") or value.endswith("-")):
        found.append("must not begin or end with a hyphen")
    return found


def port_number(value: object) -> Sequence[str]:
    is_port = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535
    return [] if is_port else [PORT_RANGE]


def percent(value: str) -> Sequence[str]:
    return [] if re.fullmatch(_PERCENT, value) else [shape(_PERCENT_TEXT, _PERCENT, "1%", "93%")]


def rule_for(kind: str) -> Callable[[str], Sequence[str]]:
    """How objects of a kind may be called; most kinds take a DNS subdomain."""
    return _RULES.get(kind, dns_subdomain)


_RULES: dict[str, Callable[[str], Sequence[str]]] = {
    "Namespace": dns_label,
    "Service": dns_label,  # RelaxedServiceNameValidation, seen on 1.36: a Service may be named 1x
    "StatefulSet": dns_label,
    "Role": path_segment,
    "RoleBinding": path_segment,
    "ClusterRole": path_segment,
    "ClusterRoleBinding": path_segment,
}
