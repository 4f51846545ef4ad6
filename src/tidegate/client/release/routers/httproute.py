"""Router ``httproute``: weights of the backendRefs of a Gateway API ``HTTPRoute`` (gateway.networking.k8s.io/v1).

By the API's own words: a weight is a proportion of the sum, 1 where none is given, 0 forwards nothing; a rule with one
backend gives it everything. A rule whose match has one header more takes precedence over its like, wherever it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate.client.release.routers.pair import RECORD, Pair, record, recorded
from tidegate.engine.act import Step as Change
from tidegate.engine.act import pointer
from tidegate.kube.api import JsonObject, Resource
from tidegate.release.fork import Fork

RULES_MAX = 16
"""An HTTPRoute has no more rules (maxItems of the standard channel's schema)."""


class HttpRoute:
    """A ``Router``."""

    resource = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")

    def fork(self, obj: JsonObject, pair: Pair) -> Fork:
        """Raises ``ValueError``."""
        name = f"httproute/{obj['metadata']['name']}"
        percents, header = [], ""
        for number, rule in enumerate(_rules(obj)):
            references = rule.get("backendRefs") or ()
            if _is_by_header(rule, pair):
                header = _header_of(rule)
            elif pair.is_stable_in(references):
                percents.append(pair.percent(references, f"{name} $.spec.rules[{number}]"))
        return pair.fork(name, percents, header, recorded(obj) is not None)

    def divided(self, obj: JsonObject, pair: Pair, percent: int, header: str) -> list[Change]:
        """Raises ``ValueError`` where there is no room for a rule of a header."""
        before = recorded(obj)
        kept, made, weights = [], [], dict(before or {})
        for number, rule in enumerate(one for one in _rules(obj) if not _is_by_header(one, pair)):
            references = rule.get("backendRefs") or ()
            if not pair.is_stable_in(references):
                kept.append(rule)
                continue
            if before is None:
                of = next(one for one in references if pair.place(one) == pair.stable)
                weights[str(number)] = of.get("weight")
            refs = pair.divided(references, percent)
            kept.append({**rule, "backendRefs": refs})
            if header:
                made.append(_by_header(rule, refs[1], header))
        if len(kept) + len(made) > RULES_MAX:
            raise ValueError(f"httproute/{obj['metadata']['name']} has no room for a rule more: {RULES_MAX} at most")
        return [*_written([*kept, *made]), *_noted(obj, record(weights))]

    def restored(self, obj: JsonObject, pair: Pair) -> list[Change]:
        weights = recorded(obj) or {}
        kept = []
        for number, rule in enumerate(one for one in _rules(obj) if not _is_by_header(one, pair)):
            references = rule.get("backendRefs") or ()
            if pair.is_stable_in(references):
                rule = {**rule, "backendRefs": pair.undivided(references, weights.get(str(number)))}
            kept.append(rule)
        path = f"/metadata/annotations/{pointer(RECORD)}"
        return [*_written(kept), *([{"op": "remove", "path": path}] if recorded(obj) is not None else [])]

    def behind(self, obj: JsonObject) -> tuple[str, ...]:
        """Controllers that have not said yet that they took in the object as it stands (``status.parents``)."""
        generation, found = obj["metadata"].get("generation", 0), []
        parents = (obj.get("status") or {}).get("parents") or ()
        for one in parents:
            where = f"{one.get('controllerName', '?')} (gateway/{(one.get('parentRef') or {}).get('name', '?')})"
            conditions = {condition.get("type"): condition for condition in one.get("conditions") or ()}
            for kind in ("Accepted", "ResolvedRefs"):
                said: dict[str, Any] = conditions.get(kind) or {}
                if said.get("status") != "True" or int(said.get("observedGeneration") or 0) < generation:
                    why = said.get("message") or said.get("reason") or "no word yet"
                    found.append(
                        f"{where}: {kind} is {said.get('status', 'Unknown')} for generation {generation}: {why}"
                    )
        return tuple(found) or (() if parents else ("no gateway has taken it in yet",))

    def controllers(self, obj: JsonObject) -> tuple[str, ...]:
        parents = (obj.get("status") or {}).get("parents") or ()
        return tuple(sorted({str(one.get("controllerName", "?")) for one in parents}))


def _rules(obj: JsonObject) -> list[JsonObject]:
    return list((obj.get("spec") or {}).get("rules") or ())


def _written(rules: Sequence[JsonObject]) -> list[Change]:
    return [{"op": "replace", "path": "/spec/rules", "value": list(rules)}]


def _noted(obj: JsonObject, text: str) -> list[Change]:
    notes = obj["metadata"].get("annotations")
    made: list[Change] = [] if notes else [{"op": "add", "path": "/metadata/annotations", "value": {}}]
    return [*made, {"op": "add", "path": f"/metadata/annotations/{pointer(RECORD)}", "value": text}]


def _is_by_header(rule: JsonObject, pair: Pair) -> bool:
    """Whether it is the rule that a release added for a header: the canary's Service alone."""
    places = [pair.place(one) for one in rule.get("backendRefs") or ()]
    return places == [pair.canary]


def _by_header(rule: JsonObject, canary: JsonObject, header: str) -> JsonObject:
    """As ``rule``, for requests with ``header`` (``name=value``) only, and all of them to the canary."""
    name, _, value = header.partition("=")
    asked = {"type": "Exact", "name": name.strip(), "value": value.strip()}
    given: list[JsonObject] = rule.get("matches") or [{}]
    matches = [{**one, "headers": [*(one.get("headers") or ()), asked]} for one in given]
    made = {key: value for key, value in rule.items() if key != "name"}
    return {**made, "matches": matches, "backendRefs": [{**canary, "weight": 1}]}


def _header_of(rule: JsonObject) -> str:
    matches: list[JsonObject] = rule.get("matches") or [{}]
    headers: list[JsonObject] = matches[0].get("headers") or [{}]
    return f"{headers[-1].get('name', '')}={headers[-1].get('value', '')}"
