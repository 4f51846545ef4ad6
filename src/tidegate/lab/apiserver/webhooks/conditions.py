"""matchConditions of webhooks: expressions in CEL over the request, its object and the old one.

CEL is Google's own library, as for custom kinds; without it a configuration with conditions is refused. What does not
compile is refused too: ``authorizer`` is not there. Follows apiserver pkg/admission/plugin/webhook/matchconditions.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tidegate.kube.api import JsonObject

try:
    from tidegate.lab.apiserver.custom import cel_library
except ImportError:  # the extra "lab" is not installed
    IS_AVAILABLE = False
else:
    IS_AVAILABLE = True

MISSING = "match conditions need CEL, which is not installed: pip install 'tidegate[lab]'"


class BadCondition(ValueError):
    """An expression that does not compile, or is neither true nor false."""


class Undecided(Exception):
    """A condition that could not be evaluated; the message is the authorizer's."""


@cache
def _environment() -> Any:
    dynamic = cel_library.DYN
    return cel_library.environment({"request": dynamic, "object": dynamic, "oldObject": dynamic})


@cache
def compiled(expression: str) -> Any:
    """A program. Raises ``BadCondition``."""
    if not IS_AVAILABLE:
        raise BadCondition(MISSING)
    try:
        program = _environment().compile(expression)
    except RuntimeError as error:
        why = re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]\Z", "", str(error))
        raise BadCondition(f"compilation failed: {why}") from None
    kind = program.return_type().name().lower()
    if kind != "bool":
        raise BadCondition(f"must evaluate to bool but got {kind}")
    return program


def hold(conditions: list[JsonObject], request: JsonObject, obj: JsonObject | None, old: JsonObject | None) -> bool:
    """Whether all of them are true. Raises ``Undecided`` where one fails to be evaluated and none is false."""
    bound = {"request": request, "object": obj, "oldObject": old}
    errors = []
    for condition in conditions:
        value, wrong = _evaluated(compiled(condition["expression"].strip()), bound)
        if wrong:
            errors.append(f"expression '{condition['expression']}' resulted in error: {wrong}")
        elif value is not True:
            return False
    if errors:
        raise Undecided(errors[0] if len(errors) == 1 else "[" + ", ".join(errors) + "]")
    return True


def _evaluated(program: Any, bound: dict[str, Any]) -> tuple[Any, str]:
    try:
        result = program.eval(data=bound)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        return None, _in_words(str(error))
    if result.type().name() in ("ERROR", "*error*"):
        return None, _in_words(str(result.value()))
    return result.value(), ""


def _in_words(text: str) -> str:
    """As cel-go says it, where we know how."""
    text = re.sub(r"^[A-Z_]+: ", "", text)
    found = re.match(r'Key not found in map : "?(.*?)"?$', text)
    return f"no such key: {found[1]}" if found else text
