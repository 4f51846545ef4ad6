"""What is wrong with a schema: whether it is structural, its defaults, its list types, its rules.

apiextensions-apiserver/pkg/apiserver/schema/validation.go and complete.go, schema/defaulting/validation.go, and
ValidateCustomResourceDefinitionOpenAPISchema of apiextensions/validation. A kind of cause that stands in the way of
the next ends the check, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom import formats, rules, shaping, structural, values
from tidegate.lab.apiserver.custom.structural import (
    EMBEDDED,
    INT_OR_STRING,
    LIST_KEYS,
    LIST_TYPE,
    MAP_TYPE,
    PRESERVES,
    RULES,
)
from tidegate.lab.apiserver.objects import clone
from tidegate.lab.apiserver.schema import causes
from tidegate.lab.apiserver.schema.causes import Cause

TYPES = ("array", "boolean", "integer", "number", "object", "string")
REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_META = ("apiVersion", "kind", "metadata")


def nodes(schema: JsonObject) -> Iterator[JsonObject]:
    """A schema and everything below it, junctors included."""
    yield schema
    for _, node in _below(schema, ""):
        yield from nodes(node)
    for key in _JUNCTORS:
        for node in schema.get(key) or ():
            yield from nodes(node)
    if isinstance(schema.get("not"), dict):
        yield from nodes(schema["not"])


def _below(schema: JsonObject, path: str) -> Iterator[tuple[str, JsonObject]]:
    """The nodes right below one, with their paths."""
    if isinstance(schema.get("items"), dict):
        yield f"{path}.items", schema["items"]
    for name, node in (schema.get("properties") or {}).items():
        yield f"{path}.properties[{name}]", node
    if isinstance(schema.get("additionalProperties"), dict):
        yield f"{path}.additionalProperties", schema["additionalProperties"]


def faults(schema: JsonObject, path: str, *, has_status: bool) -> list[Cause]:
    """Everything against the ``openAPIV3Schema`` at ``path``."""
    here = f"{path}.openAPIV3Schema"
    found: list[Cause] = []
    if has_status and schema.get("type") != "object":
        text = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        found.append(causes.invalid(f"{here}.type", schema.get("type") or "", text))
    if schema.get("nullable"):
        found.append(causes.forbidden(f"{here}.nullable", "nullable cannot be true at the root"))
    wrong = sorted(
        [*_structural(schema, here, "root"), *_complete(schema, schema, here, here)], key=lambda one: one.text
    )
    defaults = [] if wrong else [*_defaults(schema, here, is_root=True)]
    found += [*wrong, *defaults]
    plain = [*_node(schema, here, _Place(is_root=True))]
    found += plain
    if not found:
        found += _rules(structural.parse(schema), here, is_root=True, uncorrelated="")
    return found


# -- structural


_LEVELS = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}


def _structural(schema: JsonObject, path: str, level: str) -> Iterator[Cause]:
    kind, is_embedded = schema.get("type") or "", bool(schema.get(EMBEDDED))
    if kind == "array" and "items" not in schema:
        yield causes.required(f"{path}.items", "must be specified")
    if level == "root" and "additionalProperties" in schema:
        yield causes.forbidden(f"{path}.additionalProperties", "must not be used at the root")
    for where, node in _below(schema, path):
        yield from _structural(node, where, "item" if where.endswith(".items") else "field")
    if schema.get(INT_OR_STRING):
        for key in (PRESERVES, EMBEDDED):
            if schema.get(key):
                yield causes.invalid(f"{path}.{key}", True, f"must be false if {INT_OR_STRING} is true")
    yield from _junctors(schema, path, may_have_rules=True)
    if is_embedded and kind != "object":
        text = "must be object if x-kubernetes-embedded-resource is true"
        yield causes.invalid(f"{path}.type", kind, text) if kind else causes.required(f"{path}.type", text)
    elif not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVES):
        yield causes.required(f"{path}.type", f"must not be empty {_LEVELS[level]}")
    if is_embedded and "additionalProperties" in schema:
        text = "must not be used if x-kubernetes-embedded-resource is set"
        yield causes.forbidden(f"{path}.additionalProperties", text)
    if level == "root" and kind and kind != "object":
        yield causes.invalid(f"{path}.type", kind, "must be object at the root")
    if level == "root" or is_embedded:
        yield from _meta(schema, path, is_root=level == "root")
    if is_embedded and not schema.get(PRESERVES) and not schema.get("properties"):
        text = f"must not be empty if {EMBEDDED} is true without {PRESERVES}"
        yield causes.required(f"{path}.properties", text)


def _meta(schema: JsonObject, path: str, *, is_root: bool) -> Iterator[Cause]:
    held = schema.get("properties") or {}
    for name in ("kind", "apiVersion"):
        if name in held and held[name].get("type") != "string":
            yield causes.invalid(f"{path}.properties[{name}].type", held[name].get("type") or "", "must be string")
    if "metadata" not in held:
        return
    metadata = held["metadata"]
    if metadata.get("type") != "object":
        yield causes.invalid(f"{path}.properties[metadata].type", metadata.get("type") or "", "must be object")
    more = set(metadata) - {"type", "properties", "description"}
    if is_root and (more or set(metadata.get("properties") or ()) - {"name", "generateName"}):
        text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield causes.forbidden(f"{path}.properties[metadata]", text)


def _junctors(schema: JsonObject, path: str, *, may_have_rules: bool) -> Iterator[Cause]:
    """What stands under allOf, anyOf, oneOf and not may restrict values, and say nothing else."""
    for key in _JUNCTORS:
        for index, node in enumerate(schema.get(key) or ()):
            is_exempt = key == "anyOf" and schema.get("anyOf") == _INT_OR_STRING
            if is_exempt:
                continue
            is_first = key == "allOf" and not index and node.get("anyOf") == _INT_OR_STRING
            kept = {name: value for name, value in node.items() if name != "anyOf"} if is_first else node
            yield from _nested(kept, f"{path}.{key}[{index}]", may_have_rules=may_have_rules and key == "allOf")
    if isinstance(schema.get("not"), dict):
        yield from _nested(schema["not"], f"{path}.not", may_have_rules=False)
    if (pattern := schema.get("pattern")) is not None:
        try:
            formats.compiled(pattern)
        except ValueError as error:
            text = f"must be a valid regular expression, but isn't: {error}"
            yield causes.invalid(f"{path}.pattern", pattern, text)


_FORBIDDEN = {
    "type": "must be empty", "default": "must be undefined", "title": "must be empty", "description": "must be empty",
    "nullable": "must be false", PRESERVES: "must be false", EMBEDDED: "must be false", INT_OR_STRING: "must be false",
    LIST_KEYS: "must be empty", LIST_TYPE: "must be undefined", MAP_TYPE: "must be undefined",
    "additionalProperties": "must be undefined",
}  # fmt: skip


def _nested(schema: JsonObject, path: str, *, may_have_rules: bool) -> Iterator[Cause]:
    yield from _junctors(schema, path, may_have_rules=may_have_rules)
    for where, node in _below(schema, path):
        yield from _nested(node, where, may_have_rules=may_have_rules)
    for key, text in _FORBIDDEN.items():
        if schema.get(key):
            yield causes.forbidden(f"{path}.{key}", f"{text} to be structural")
    if schema.get(RULES):  # the real server runs those of allOf; here none must pass unasked
        yield causes.forbidden(f"{path}.{RULES}", "must be empty to be structural")
    if "metadata" in (schema.get("properties") or {}):
        yield causes.forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _complete(said: JsonObject, spine: JsonObject | None, at: str, where: str) -> Iterator[Cause]:
    """Every field that a junctor speaks of has a schema outside of junctors."""
    for key in _JUNCTORS:
        for index, node in enumerate(said.get(key) or ()):
            yield from _complete_nested(node, spine, at, f"{where}.{key}[{index}]")
    if isinstance(said.get("not"), dict):
        yield from _complete_nested(said["not"], spine, at, f"{where}.not")


def _complete_nested(said: JsonObject, spine: JsonObject | None, at: str, where: str) -> Iterator[Cause]:
    if spine is None:
        yield causes.required(at, f"because it is defined in {where}")
        return
    yield from _complete(said, spine, at, where)
    if isinstance(said.get("items"), dict):
        yield from _complete_nested(said["items"], spine.get("items"), f"{at}.items", f"{where}.items")
    held = spine.get("properties") or {}
    for name, node in (said.get("properties") or {}).items():
        below = f".properties[{name}]"
        yield from _complete_nested(node, held.get(name), at + below, where + below)


# -- defaults


def _defaults(schema: JsonObject, path: str, *, is_root: bool = False) -> Iterator[Cause]:
    value = schema.get("default")
    if value is not None:
        pruned, here = clone(value), f"{path}.default"
        shaping.prune_below(pruned, structural.parse(schema))
        if pruned != value:
            yield causes.invalid(here, value, "must not have unknown fields")
        for cause in values.validate(value, {key: said for key, said in schema.items() if key != "default"}):
            yield replace(cause, field=here if cause.field == "<nil>" else f"{here}.{cause.field}")
    for where, node in _below(schema, path):
        if not where.endswith(".additionalProperties"):
            yield from _defaults(node, where)


# -- every node


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node stands: defaults are not allowed everywhere."""

    is_root: bool = False
    forbids_defaults: str = ""
    is_in_meta: bool = False


def _node(schema: JsonObject, path: str, place: _Place) -> Iterator[Cause]:
    yield from _standard(schema, path, place)
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield causes.forbidden(f"{path}.uniqueItems", text)
    additional = schema.get("additionalProperties")
    if schema.get("properties") and (isinstance(additional, dict) or additional is False):
        text = "additionalProperties and properties are mutual exclusive"
        yield causes.forbidden(f"{path}.additionalProperties", text)
    is_resource = place.is_root or bool(schema.get(EMBEDDED))
    for where, node in _below(schema, path):
        name = where.rpartition("[")[2].rstrip("]")
        is_meta = is_resource and ".properties[" in where.removeprefix(path) and name in _META
        below = replace(place, is_root=False, is_in_meta=place.is_in_meta or is_meta)
        if is_meta and place.is_root:
            below = replace(below, forbids_defaults=f"in top-level {name}")
        yield from _node(node, where, below)
    for key in _JUNCTORS:
        for index, node in enumerate(schema.get(key) or ()):
            yield from _node(node, f"{path}.{key}[{index}]", replace(place, is_root=False))
    if schema.get(PRESERVES) is False:
        yield causes.invalid(f"{path}.{PRESERVES}", False, "must be true or undefined")
    yield from _kinds(schema, path)
    yield from _keys(schema, path)
    for index, rule in enumerate(schema.get(RULES) or ()):
        yield from _rule(rule, f"{path}.{RULES}[{index}]", schema)


def _standard(schema: JsonObject, path: str, place: _Place) -> Iterator[Cause]:
    if schema.get("type") and schema["type"] not in TYPES:
        yield causes.not_supported(f"{path}.type", schema["type"], TYPES)
    if schema.get("default") is not None and place.forbids_defaults:
        yield causes.forbidden(f"{path}.default", f"must not be set {place.forbids_defaults}")
    for key in _UNSUPPORTED:
        if schema.get(key):
            yield causes.forbidden(f"{path}.{key}", f"{key} is not supported")
    if isinstance(schema.get("items"), list):
        yield causes.forbidden(f"{path}.items", "items must be a schema object and not an array")
    if place.is_in_meta and schema.get(EMBEDDED):
        yield causes.forbidden(f"{path}.{EMBEDDED}", "must not be used inside of resource meta")


def _kinds(schema: JsonObject, path: str) -> Iterator[Cause]:
    """List types and map types fit their nodes."""
    kind = schema.get("type") or ""
    for key, wanted, options in (
        (MAP_TYPE, "object", ("atomic", "granular")),
        (LIST_TYPE, "array", ("atomic", "set", "map")),
    ):
        said = schema.get(key)
        if said is None:
            continue
        text = f"must be {wanted} if {key} is specified"
        if kind != wanted:
            yield causes.invalid(f"{path}.type", kind, text) if kind else causes.required(f"{path}.type", text)
        if said not in options:
            yield causes.not_supported(f"{path}.{key}", said, options)
    items = schema.get("items")
    if schema.get(LIST_TYPE) == "set" and isinstance(items, dict) and kind == "array":
        text = "must be atomic as item of a list with x-kubernetes-list-type=set"
        if items.get("type") == "array" and items.get(LIST_TYPE) not in (None, "atomic"):
            yield causes.invalid(f"{path}.items.{LIST_TYPE}", items[LIST_TYPE], text)
        if items.get("type") == "object" and items.get(MAP_TYPE) != "atomic":
            yield causes.invalid(f"{path}.items.{MAP_TYPE}", items.get(LIST_TYPE), text)


def _keys(schema: JsonObject, path: str) -> Iterator[Cause]:
    said, keys, items = schema.get(LIST_TYPE), schema.get(LIST_KEYS) or [], schema.get("items")
    if keys and said != "map":
        text = f"must be map if {LIST_KEYS} is non-empty"
        yield (
            causes.invalid(f"{path}.{LIST_TYPE}", said, text) if said else causes.required(f"{path}.{LIST_TYPE}", text)
        )
    if said == "map":
        if not keys:
            yield causes.required(f"{path}.{LIST_KEYS}", f"must not be empty if {LIST_TYPE} is map")
        if items is None:
            yield causes.required(f"{path}.items", f"must have a schema if {LIST_TYPE} is map")
        elif isinstance(items, dict) and items.get("type") != "object":
            text = f"must be object if parent array's {LIST_TYPE} is map"
            yield causes.invalid(f"{path}.items.type", items.get("type") or "", text)
        elif isinstance(items, dict):
            yield from _each_key(items, keys, path)
    if said in ("map", "set") and isinstance(items, dict) and items.get("nullable"):
        text = f"cannot be nullable when {LIST_TYPE} is {said}"
        yield causes.forbidden(f"{path}.items.nullable", text)


def _each_key(items: JsonObject, keys: list[str], path: str) -> Iterator[Cause]:
    held = items.get("properties") or {}
    for at, key in enumerate(keys):
        if key not in held:
            yield causes.invalid(f"{path}.{LIST_KEYS}", keys, "entries must all be names of item properties")
        elif held[key].get("type") in ("array", "object"):
            text = f"must be a scalar type if parent array's {LIST_TYPE} is map"
            yield causes.invalid(f"{path}.items.properties[{key}].type", items["type"], text)
        if key in keys[:at]:
            yield causes.invalid(f"{path}.{LIST_KEYS}", keys, "must not contain duplicate entries")
    for key in keys:
        where, why = f"{path}.items.properties[{key}]", f"this property is in {LIST_KEYS}, so it"
        if key in held and key not in (items.get("required") or ()) and held[key].get("default") is None:
            yield causes.required(f"{where}.default", f"{why} must have a default or be a required property")
        if key in held and held[key].get("nullable"):
            yield causes.forbidden(f"{where}.nullable", f"{why} cannot be nullable")


# -- rules


def _rule(rule: JsonObject, path: str, schema: JsonObject) -> Iterator[Cause]:
    text, message = str(rule.get("rule") or ""), rule.get("message") or ""
    if not text.strip():
        yield causes.required(f"{path}.rule", "rule is not specified")
    elif message and not message.strip():
        yield causes.invalid(f"{path}.message", message, "must be non-empty if specified")
    elif "\n" in message.strip():
        yield causes.invalid(f"{path}.message", message, "must not contain line breaks")
    elif "\n" in text.strip() and not message:
        yield causes.required(f"{path}.message", "message must be specified if rule contains line breaks")
    if rule.get("messageExpression") and not rule["messageExpression"].strip():
        yield causes.required(f"{path}.messageExpression", "messageExpression must be non-empty if specified")
    if rule.get("reason") and rule["reason"] not in REASONS:
        yield causes.not_supported(f"{path}.reason", rule["reason"], REASONS)
    if where := rule.get("fieldPath"):
        try:
            rules.normalized_path(where, structural.parse(schema))
        except ValueError:
            yield causes.invalid(f"{path}.fieldPath", where, "must be a valid path")


def _rules(schema: structural.Schema, path: str, *, is_root: bool, uncorrelated: str) -> Iterator[Cause]:
    """Compile every rule. What CEL does not know, or the lab's library does not have, is refused here."""
    for name, node in schema.properties.items():
        if node.has_rules():
            yield from _rules(node, f"{path}.properties[{name}]", is_root=False, uncorrelated=uncorrelated)
    if schema.items is not None and schema.items.has_rules():
        lost = uncorrelated or ("" if schema.list_type == "map" else path)
        yield from _rules(schema.items, f"{path}.items", is_root=False, uncorrelated=lost)
    if schema.additional is not None and schema.additional.has_rules():
        yield from _rules(schema.additional, f"{path}.additionalProperties", is_root=False, uncorrelated=uncorrelated)
    if not schema.rules:
        return
    if not rules.IS_AVAILABLE:
        yield causes.forbidden(f"{path}.{RULES}", rules.MISSING)
        return
    checker = rules.Checker(schema, is_root=is_root or schema.is_embedded)
    for index, said in enumerate(schema.rules):
        yield from _compiled(checker, said, f"{path}.{RULES}[{index}]", uncorrelated)


def _compiled(checker: rules.Checker, said: JsonObject, path: str, uncorrelated: str) -> Iterator[Cause]:
    try:
        checker.check_rule(said)
    except rules.BadRule as error:
        yield causes.invalid(f"{path}.rule", _printed(said), str(error))
        return
    try:
        if said.get("messageExpression"):
            checker.check_message(said)
    except rules.BadRule as error:
        yield causes.invalid(f"{path}.messageExpression", _printed(said), str(error))
        return
    try:
        checker.compiled(said)
    except rules.BadRule as error:
        yield causes.invalid(f"{path}.rule", _printed(said), str(error))
    uses_old = checker.uses_old(said)
    if uses_old and uncorrelated:
        text = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
        yield causes.invalid(f"{path}.rule", said["rule"], text)
    if not uses_old and "optionalOldSelf" in said:
        yield causes.invalid(
            f"{path}.optionalOldSelf", said["optionalOldSelf"], "may not be set if oldSelf is not used in rule"
        )


def _printed(said: JsonObject) -> dict[str, Any]:
    """A rule as the server prints its own form of it."""
    texts = {"Rule": "rule", "Message": "message", "MessageExpression": "messageExpression"}
    shown: dict[str, Any] = {name: said.get(key, "") for name, key in texts.items()}
    shown |= {"Reason": said.get("reason"), "FieldPath": said.get("fieldPath", "")}
    return shown | {"OptionalOldSelf": said.get("optionalOldSelf")}
