"""Validation rules in CEL (``x-kubernetes-validations``) of a custom kind (apiextensions schema/cel).

CEL itself is Google's own library (cel-expr-python). What it does not compile is refused when the definition is
created; a rule is never skipped. Without the library a definition with rules is refused as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom.structural import Schema
from tidegate.lab.apiserver.schema import causes
from tidegate.lab.apiserver.schema.causes import Cause
from tidegate.lab.apiserver.schema.patches import same

try:
    from tidegate.lab.apiserver.custom import cel_library, cel_types
except ImportError:  # the extra "lab" is not installed
    IS_AVAILABLE = False
else:
    IS_AVAILABLE = True

MISSING = "validation rules need CEL, which is not installed: pip install 'tidegate[lab]'"
MESSAGE_BYTES_MAX = 5 * 1024

_TOKEN = re.compile(r"""("{3}.*?"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?<![\w.])oldSelf\b""", re.DOTALL)
_NO_KEY = re.compile(r'Key not found in map : "?(.*?)"?$')
_NO_CONVERSION = re.compile(r"(?:cannot convert string to|String to) (\w+)(?: conversion failed)?$")
_CONVERTED = {"Duration": "google.protobuf.Duration", "Timestamp": "google.protobuf.Timestamp"}
_NO_INDEX = re.compile(r"Index error: index=(-?\d+)")


_MIXED = re.compile(r"overload for '_[<>]=?_' applied to '\((int, double|double, int)\)'")


_OLD_UNKNOWN = re.compile(r"undeclared reference to 'oldSelf\b")


class BadRule(ValueError):
    """A rule that does not compile; the message is what a definition is refused with."""


def _with_optional(text: str, stands_for: str) -> str:
    """A rule in which ``oldSelf`` is an optional value: the library takes none from outside, so the rule makes it."""
    return _TOKEN.sub(lambda hit: hit[1] or stands_for, text)


@cache
def _running() -> Any:
    """The environment rules run in: every value is dynamic, for it has been checked before."""
    return cel_library.environment({"self": cel_library.DYN, "oldSelf": cel_library.DYN})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, compiled. ``first`` is what runs where there is no old value and the rule says it can do without."""

    said: JsonObject
    program: Any
    first: Any
    message: Any
    first_message: Any
    uses_old: bool
    path: str = ""

    @property
    def shown(self) -> str:
        """The rule as its errors name it: by its message, where it has one."""
        return str(self.said.get("message") or self.said["rule"]).strip()


class Checker:
    """Compiles the rules of one node against its types."""

    def __init__(self, schema: Schema, *, is_root: bool = False) -> None:
        self._schema, self._is_root = schema, is_root
        types = cel_types.Types()
        kind = types.of(schema, is_root=is_root)
        self._full = cel_library.environment({"self": kind, "oldSelf": kind}, types.pool)
        others = cel_types.Types()
        self._new = cel_library.environment({"self": others.of(schema, is_root=is_root)}, others.pool)

    def check_rule(self, said: JsonObject) -> None:
        """Raise ``BadRule`` unless the rule is an expression of this node that is true or false."""
        text, is_optional = str(said["rule"]), bool(said.get("optionalOldSelf"))
        kind = self._checked(_with_optional(text, "optional.of(oldSelf)") if is_optional else text)
        if kind.name() not in ("BOOL", "bool"):
            raise BadRule("cel expression must evaluate to a bool")

    def uses_old(self, said: JsonObject) -> bool:
        """The rule speaks of ``oldSelf``: where that is not declared, its name is what does not compile."""
        try:
            self._new.compile(str(said["rule"]))
        except RuntimeError as error:
            return _OLD_UNKNOWN.search(str(error)) is not None
        return False

    def compiled(self, said: JsonObject) -> Rule:
        """A rule ready to run. Raises ``BadRule``."""
        self.check_rule(said)
        if said.get("messageExpression"):
            self.check_message(said)
        text, is_optional = str(said["rule"]), bool(said.get("optionalOldSelf"))
        uses_old = self.uses_old(said)
        message = str(said.get("messageExpression") or "")
        program, first = _ready(text, is_optional)
        said_of, said_first = _ready(message, is_optional) if message else (None, None)
        where = normalized_path(str(said.get("fieldPath") or ""), self._schema)
        return Rule(said, program, first, said_of, said_first, uses_old, where)

    def check_message(self, said: JsonObject) -> None:
        """Raise ``BadRule`` unless the messageExpression gives a string."""
        text = str(said.get("messageExpression") or "")
        checked = _with_optional(text, "optional.of(oldSelf)") if said.get("optionalOldSelf") else text
        kind = _compile(self._full, checked, "messageExpression compilation failed").return_type()
        if kind.name() not in ("STRING", "string"):
            raise BadRule("messageExpression must evaluate to a string")

    def _checked(self, text: str) -> Any:
        """The type of an expression. Kubernetes compares numbers of different types, CEL's checker by itself does not:
        what only fails for that is checked again with dynamic numbers."""
        try:
            return _compile(self._full, text).return_type()
        except BadRule as error:
            if not _MIXED.search(str(error)):
                raise
            loose = cel_types.Types(is_loose=True)
            kind = loose.of(self._schema, is_root=self._is_root)
            environment = cel_library.environment({"self": kind, "oldSelf": kind}, loose.pool)
            return _compile(environment, text).return_type()


def _ready(text: str, is_optional: bool) -> tuple[Any, Any]:
    if not is_optional:
        return _compile(_running(), text), None
    with_old, without = _with_optional(text, "optional.of(oldSelf)"), _with_optional(text, "optional.none()")
    return _compile(_running(), with_old), _compile(_running(), without)


def _compile(environment: Any, text: str, failed: str = "compilation failed") -> Any:
    try:
        return environment.compile(text)
    except RuntimeError as error:
        why = re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]\Z", "", str(error))
        why = _CALL.sub(lambda hit: _as_method(hit, text), why)
        why = re.sub(r"(undefined field '[^']*') not found in struct '[^']*'", r"\1", why)
        raise BadRule(f"{failed}: {why}") from None


_CALL = re.compile(r"<input>:1:(\d+): found no matching overload for '(\w+)' applied to '\(([^,()]+)(?:, )?([^()]*)\)'")


def _as_method(hit: re.Match[str], text: str) -> str:
    """``int.(string)``, as cel-go shows a function that is called on its first argument."""
    if not text[: int(hit[1]) - 1].endswith(f".{hit[2]}"):
        return hit[0]
    return f"<input>:1:{hit[1]}: found no matching overload for '{hit[2]}' applied to '{hit[3]}.({hit[4]})'"


def normalized_path(text: str, schema: Schema) -> str:
    """A rule's ``fieldPath`` as errors show it. ValueError when it leads nowhere (ValidFieldPath)."""
    shown, node = "", schema
    for hit in re.finditer(r"\.([^.\[\]]+)|\['((?:[^'\\]|\\.)*)'\]|(.)", text):
        name = hit[1] if hit[1] is not None else hit[2]
        if name is None:
            raise ValueError(f"expected [ or . but got: {text}")
        name = re.sub(r"\\(.)", r"\1", name) if hit[2] is not None else name
        if node.properties:
            if name not in node.properties:
                raise ValueError("does not refer to a valid field")
            node, shown = node.properties[name], f"{shown}.{name}" if shown else name
        elif node.additional is not None:
            node, shown = node.additional, f"{shown}[{name}]"
        else:
            raise ValueError("does not refer to a valid field")
    return shown


class Validator:
    """The rules of one node and of those below it."""

    def __init__(self, schema: Schema, *, is_root: bool = False) -> None:
        self._schema, self._is_root = schema, is_root
        checker = Checker(schema, is_root=is_root) if schema.rules else None
        self._rules = [checker.compiled(said) for said in schema.rules] if checker is not None else []
        self._properties = {name: Validator(node) for name, node in schema.properties.items() if node.has_rules()}
        self._items = _below(schema.items)
        self._additional = _below(schema.additional)

    def faults(self, obj: JsonObject, old: JsonObject | None) -> list[Cause]:
        """What the rules have against an object."""
        found: list[Cause] = []
        self._check(obj, old, "", found)
        return found

    def _check(self, value: Any, old: Any, path: str, found: list[Cause]) -> None:
        if value is None:
            return
        if self._rules:
            self._run(value, old, path, found)
        if isinstance(value, list) and self._items is not None:
            for index, item in enumerate(value):
                before = cel_types.former(old, item, self._schema)
                self._items._check(item, before, f"{path}[{index}]", found)
        elif isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for key, item in value.items():
                if key in self._properties:
                    here = f"{path}.{key}" if path else key
                    self._properties[key]._check(item, before.get(key), here, found)
                elif self._additional is not None and key not in self._schema.properties:
                    self._additional._check(item, before.get(key), f"{path}[{key}]", found)

    def _run(self, value: Any, old: Any, path: str, found: list[Cause]) -> None:
        bound = {"self": cel_types.data(value, self._schema, is_root=self._is_root), "oldSelf": None}
        if old is not None:
            before = cel_types.aligned(old, value, self._schema)
            bound["oldSelf"] = cel_types.data(before, self._schema, is_root=self._is_root)
        shown = _running().Activation(bound)
        is_unchanged = old is not None and bool(path) and same(value, old)
        for rule in self._rules:
            program, message = rule.program, rule.message
            if rule.uses_old and old is None:
                if rule.first is None:
                    continue  # a transition rule, and nothing to compare with
                program, message = rule.first, rule.first_message
            if not rule.uses_old and is_unchanged:
                continue  # what was let in before is no longer held against the object (ratcheting)
            verdict, wrong = _evaluated(program, shown)
            if wrong:
                found.append(causes.invalid(path or "<nil>", self._schema.type, _error(wrong, rule)))
            elif verdict is not True:
                found.append(self._broken(rule, _said(rule, message, shown), path, value))

    def _broken(self, rule: Rule, text: str, path: str, value: Any) -> Cause:
        where = ".".join(part for part in (path, rule.path) if part) or "<nil>"
        reason = rule.said.get("reason") or "FieldValueInvalid"
        if reason == "FieldValueForbidden":
            return causes.forbidden(where, text)
        if reason == "FieldValueRequired":
            return causes.required(where, text)
        is_compound = self._schema.type in ("object", "array")
        if reason == "FieldValueDuplicate":
            shown = "Duplicate value" if is_compound else f"Duplicate value: {causes.shown(value)}"
            return Cause(where, "FieldValueDuplicate", shown)
        shown = "Invalid value" if is_compound else f"Invalid value: {causes.shown(value)}"
        return Cause(where, "FieldValueInvalid", f"{shown}: {text}")


def _evaluated(program: Any, shown: Any) -> tuple[Any, str]:
    """What an expression gives, and what went wrong ("" for nothing)."""
    try:
        result = program.eval(shown)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        return None, str(error)
    if result.type().name() in ("ERROR", "*error*"):
        return None, str(result.value())
    return result.value(), ""


def _below(schema: Schema | None) -> Validator | None:
    return Validator(schema) if schema is not None and schema.has_rules() else None


def _error(text: str, rule: Rule) -> str:
    """An evaluation that failed, in cel-go's words."""
    text = re.sub(r"^[A-Z_]+: ", "", text)
    if text.startswith(("No matching overloads", "Applying SELECT", "no such overload")):
        why = "call arguments did not match a supported operator, function or macro signature"
        return f"'no such overload': {why} for rule: {rule.shown}"
    if found := _NO_KEY.match(text):
        text = f"no such key: {found[1]}"
    elif found := _NO_INDEX.match(text):
        text = f"index out of bounds: {found[1]}"
    elif found := _NO_CONVERSION.match(text):
        text = f"type conversion error from 'string' to '{_CONVERTED.get(found[1], found[1])}'"
    elif text in ("divide by zero", "modulus by zero"):
        text = "division by zero" if text.startswith("divide") else text
    return f"{text} evaluating rule: {rule.shown}"


def _said(rule: Rule, message: Any, shown: Any) -> str:
    """The messageExpression's text; where it gives none that will do, the message, or the rule itself."""
    if message is not None:
        text, _ = _evaluated(message, shown)
        text = text.strip() if isinstance(text, str) else ""
        if text and "\n" not in text and len(text.encode()) <= MESSAGE_BYTES_MAX:
            return text
    if rule.said.get("message"):
        return rule.shown
    return f"failed rule: {rule.shown}"


def compiled(schema: Schema) -> Validator | None:
    """The rules of a schema, root and all below; None when it has none. Raises ``BadRule``."""
    if not schema.has_rules():
        return None
    if not IS_AVAILABLE:
        raise BadRule(MISSING)
    return Validator(schema, is_root=True)
