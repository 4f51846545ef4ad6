"""Stories of custom kinds: definitions and what the server makes of their objects.

Definitions belong to the cluster: each story names a group of its own and takes its definition away in the end.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from tests.realcluster.twin import JSON_PATCH, MERGE, STRATEGIC, TABLE, Side

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
APPLY = "application/apply-patch+yaml"


def definition(group: str, schema: dict[str, Any] | None = None, **version: Any) -> dict[str, Any]:
    """A definition of gizmos with one version; ``version`` adds to it."""
    one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or {"type": "object"}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gizmos.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "shortNames": ["gz"]},
            "versions": [{**one, **version}],
        },
    }


def root(spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A schema whose spec has these properties."""
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": spec or {}}}, **more}


def gizmo(group: str, name: str = "g", version: str = "v1", **more: Any) -> dict[str, Any]:
    return {"apiVersion": f"{group}/{version}", "kind": "Gizmo", "metadata": {"name": name}, **more}


class Gizmos:
    """The gizmos of one story: where they are, and how their definition comes and goes."""

    def __init__(self, side: Side, group: str) -> None:
        self.side, self.group = side, f"{group}.example.org"
        self.path = f"/apis/{self.group}/v1/namespaces/{side.namespace}/gizmos"
        self.definition = f"{DEFINITIONS}/gizmos.{self.group}"

    async def define(self, schema: dict[str, Any] | None = None, **version: Any) -> None:
        """Create the definition and wait until it is served."""
        answer = await self.side.quietly("POST", DEFINITIONS, definition(self.group, schema, **version))
        assert answer.status == 201, answer.body
        await self.established()

    async def established(self) -> None:
        for _ in range(100):
            found = await self.side.quietly("GET", self.definition)
            held = {one["type"]: one["status"] for one in found.body["status"].get("conditions") or ()}
            listed = await self.side.quietly("GET", f"/apis/{self.group}/v1/gizmos")
            if held.get("Established") == "True" and listed.status == 200:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(found.body)

    async def drop(self) -> None:
        await self.side.quietly("DELETE", self.definition)
        for _ in range(100):
            if (await self.side.quietly("GET", self.definition)).status == 404:
                return
            await asyncio.sleep(0.05)

    async def post(self, name: str, **more: Any) -> Any:
        query = {key: more.pop(key) for key in ("fieldValidation", "dryRun") if key in more}
        return await self.side.ask("POST", self.path, gizmo(self.group, name, **more), **query)


async def custom_lives(side: Side) -> None:
    """A definition comes, is served and goes."""
    gizmos = Gizmos(side, "lives")
    await side.ask("POST", DEFINITIONS, definition(gizmos.group, root({"size": {"type": "integer"}})))
    await gizmos.established()
    await side.ask("GET", gizmos.definition)
    await side.ask("GET", gizmos.definition, accept=TABLE)
    await side.ask("GET", f"/apis/{gizmos.group}")
    await side.ask("GET", f"/apis/{gizmos.group}/v1")
    await gizmos.post("g", spec={"size": 3})
    await side.ask("GET", gizmos.path)
    await side.ask("GET", gizmos.path, accept=TABLE)
    await side.ask("PUT", f"{gizmos.path}/g", gizmo(gizmos.group, "g", spec={"size": 4}))
    found = await side.quietly("GET", f"{gizmos.path}/g")
    await side.ask("PUT", f"{gizmos.path}/g", {**found.body, "spec": {"size": 4}})
    await side.ask("PATCH", f"{gizmos.path}/g", {"metadata": {"labels": {"a": "b"}}}, kind=MERGE)
    await side.ask("PATCH", f"{gizmos.path}/g", [{"op": "add", "path": "/spec/size", "value": 9}], kind=JSON_PATCH)
    await side.ask("PATCH", f"{gizmos.path}/g", [{"op": "test", "path": "/spec/size", "value": 1}], kind=JSON_PATCH)
    await side.ask("PATCH", f"{gizmos.path}/g", {"spec": {"size": 5}}, kind=STRATEGIC)
    await side.ask("GET", gizmos.path, labelSelector="a=b")
    await side.ask("GET", gizmos.path, fieldSelector="metadata.name=h")
    await side.ask("GET", gizmos.path, fieldSelector="spec.size=9")
    await side.ask("GET", f"{gizmos.path}/none")
    await side.ask("POST", gizmos.path, gizmo(gizmos.group, "g"))
    await side.ask("DELETE", f"{gizmos.path}/g")
    await gizmos.drop()
    await side.ask("GET", gizmos.path)
    await side.ask("GET", f"/apis/{gizmos.group}/v1")


async def custom_documents(side: Side) -> None:
    """What discovery and the OpenAPI document say of a custom kind."""
    gizmos = Gizmos(side, "documents")
    made = definition(
        gizmos.group, root({"size": {"type": "integer", "description": "How big."}}, description="A gizmo.")
    )
    made["spec"]["names"]["categories"] = ["toys"]
    made["spec"]["versions"][0]["subresources"] = {"status": {}}
    await side.quietly("POST", DEFINITIONS, made)
    await gizmos.established()
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    name = ".".join([*reversed(gizmos.group.split(".")), "v1", "Gizmo"])
    for _ in range(100):
        listed = await side.quietly("GET", "/apis", accept=accept)
        groups = [one for one in listed.body["items"] if one["metadata"]["name"] == gizmos.group]
        document = await side.quietly("GET", f"/openapi/v3/apis/{gizmos.group}/v1")
        if groups and document.status == 200 and name in document.body["components"]["schemas"]:
            break
        await asyncio.sleep(0.1)
    side.tell("aggregated", groups)
    side.tell("schema", document.body["components"]["schemas"][name])
    paths = document.body["paths"]
    side.tell("paths", {path: sorted(set(methods) - {"parameters"}) for path, methods in paths.items()})
    patch = paths[f"/apis/{gizmos.group}/v1/namespaces/{{namespace}}/gizmos/{{name}}"]["patch"]
    side.tell("patches", sorted(patch["requestBody"]["content"]))
    legacy = await side.quietly("GET", "/apis")
    side.tell("group", [one for one in legacy.body["groups"] if one["name"] == gizmos.group])
    await gizmos.drop()


async def custom_status(side: Side) -> None:
    """Generations, the status subresource and the scale."""
    gizmos = Gizmos(side, "status")
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
             "labelSelectorPath": ".status.selector"}  # fmt: skip
    status = {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}
    schema = root({"replicas": {"type": "integer"}})
    schema["properties"]["status"] = status
    await gizmos.define(schema, subresources={"status": {}, "scale": scale})
    one = f"{gizmos.path}/g"
    await side.ask("GET", f"/apis/{gizmos.group}/v1")
    await gizmos.post("g", spec={"replicas": 1}, status={"replicas": 7})
    await side.ask("PATCH", one, {"spec": {"replicas": 2}, "status": {"replicas": 7}}, kind=MERGE)
    await side.ask("PATCH", one, {"metadata": {"annotations": {"x": "y"}}}, kind=MERGE)
    body = {"metadata": {"labels": {"l": "v"}}, "spec": {"replicas": 5}, "status": {"replicas": 2, "selector": "a=b"}}
    await side.ask("PATCH", f"{one}/status", body, kind=MERGE)
    await side.ask("PATCH", f"{one}/status", {"status": {"replicas": "many"}}, kind=MERGE)
    await side.ask("PATCH", f"{one}/status", {"status": {"replicas": -1}}, kind=MERGE)
    await side.ask("GET", f"{one}/status")
    await side.ask("GET", f"{one}/scale")
    await side.ask("PATCH", f"{one}/scale", {"spec": {"replicas": 6}}, kind=MERGE)
    await side.ask("PATCH", f"{one}/scale", {"spec": {"replicas": -6}}, kind=MERGE)
    await side.ask("GET", one)
    await gizmos.post("bare")
    await side.ask("GET", f"{gizmos.path}/bare/scale")
    await gizmos.post("minus", spec={"replicas": -1})
    await gizmos.drop()


async def custom_values(side: Side) -> None:
    """Values that do not fit their schema."""
    gizmos = Gizmos(side, "values")
    await gizmos.define(
        root(
            {
                "whole": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
                "part": {"type": "number", "exclusiveMinimum": True, "minimum": 0.5},
                "small": {"type": "integer", "format": "int32"},
                "text": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"},
                "pick": {"type": "string", "enum": ["red", "green"]},
                "digit": {"type": "integer", "enum": [1, 2]},
                "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
                "map": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}},
                "flag": {"type": "boolean"},
                "maybe": {"type": "string", "nullable": True},
                "port": {"x-kubernetes-int-or-string": True},
                "when": {"type": "string", "format": "date-time"},
                "lasts": {"type": "string", "format": "duration"},
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "keyed": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                },
                "need": {"type": "object", "required": ["this"], "properties": {"this": {"type": "string"}}},
                "one": {
                    "type": "object",
                    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                    "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                },
                "any": {
                    "type": "object",
                    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                    "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
                },
                "no": {"type": "string", "not": {"enum": ["x"]}},
            }
        )
    )
    wrong: list[dict[str, Any]] = [
        {"whole": 0}, {"whole": 11}, {"whole": 3}, {"whole": 2.5}, {"whole": 4.0}, {"whole": "4"}, {"part": 0.5},
        {"part": 1}, {"small": 2**40}, {"text": "a"}, {"text": "abcdef"}, {"text": "AB"}, {"text": 5}, {"text": None},
        {"pick": "blue"}, {"digit": 3}, {"list": []}, {"list": ["a", "b", "c"]}, {"list": ["a", 1]}, {"list": {}},
        {"map": {"a": 1, "b": 2}}, {"map": {"a": "x"}}, {"flag": "true"}, {"maybe": None}, {"port": 5}, {"port": "x"},
        {"port": True}, {"port": {}}, {"when": "tomorrow"}, {"when": "2026-01-01T00:00:00Z"}, {"lasts": "soon"},
        {"lasts": "1m30s"}, {"set": ["a", "a"]}, {"keyed": [{"name": "a"}, {"name": "a"}]}, {"keyed": [{}]},
        {"need": {}}, {"one": {}}, {"one": {"a": "1", "b": "2"}}, {"any": {}}, {"no": "x"},
        {"flag": 2**70}, {"part": 1e16}, {"whole": 1e7}, {"port": 2**70}, {"part": -1e30}, {"digit": 1e10},
    ]  # fmt: skip
    for number, spec in enumerate(wrong):
        await gizmos.post(f"g{number}", spec=spec)
    await gizmos.post("listed", spec=[])
    await gizmos.post("Not_A_Name")
    await gizmos.drop()


async def custom_unknown(side: Side) -> None:
    """Unknown fields: pruned, warned of, refused, kept."""
    gizmos = Gizmos(side, "unknown")
    open_ = {"type": "object", "x-kubernetes-preserve-unknown-fields": True,
             "properties": {"in": {"type": "object", "properties": {"x": {"type": "string"}}}}}  # fmt: skip
    embedded = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    await gizmos.define(root({"a": {"type": "string"}, "open": open_, "pod": embedded,
                              "list": {"type": "array", "items": {"type": "object"}}}))  # fmt: skip
    spec = {"a": "x", "b": 1, "open": {"free": {"x": 1}, "in": {"x": "1", "y": 2}}, "list": [{"z": 1}, {}]}
    for asked in ("Ignore", "Strict"):
        await gizmos.post(asked.lower(), spec=spec, top=1, fieldValidation=asked)
    await gizmos.post("warn", spec={"b": 1}, fieldValidation="Warn")
    await gizmos.post("plain", spec={"open": spec["open"]})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 1}, "spec": {"x": 1}}
    await gizmos.post("pod", spec={"pod": pod}, fieldValidation="Warn")
    await gizmos.post("no-kind", spec={"pod": {"metadata": {"labels": {"a b": "c"}}}})
    meta = {"metadata": {"name": "meta", "color": "red", "labels": {"a": "b"}}}
    await side.ask("POST", gizmos.path, {**gizmo(gizmos.group), **meta}, fieldValidation="Strict")
    await side.ask("POST", gizmos.path, {**gizmo(gizmos.group), "metadata": {"name": "x", "labels": {"a": 1}}})
    await side.ask("PATCH", f"{gizmos.path}/plain", {"spec": {"c": 1}}, kind=MERGE, fieldValidation="Strict")
    await side.ask("PATCH", f"{gizmos.path}/plain", {"spec": {"c": 1}}, kind=MERGE, fieldValidation="Warn")
    found = await side.quietly("GET", f"{gizmos.path}/plain")
    body = {**found.body, "spec": {"d": 1}}
    await side.ask("PUT", f"{gizmos.path}/plain", body, fieldValidation="Strict")
    await gizmos.drop()


async def custom_defaults(side: Side) -> None:
    """Defaults, and nulls in their way."""
    gizmos = Gizmos(side, "defaults")
    inner = {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 5}}}
    schema = root(
        {
            "a": {"type": "string", "default": "x"},
            "inner": inner,
            "deep": {"type": "object", "properties": {"b": {"type": "boolean", "default": True}}},
            "list": {
                "type": "array",
                "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}},
            },
            "maybe": {"type": "string", "nullable": True, "default": "m"},
            "plain": {"type": "string"},
        }
    )
    await gizmos.define(schema)
    await gizmos.post("none")
    await gizmos.post("empty", spec={})
    await gizmos.post("nulls", spec={"a": None, "maybe": None, "plain": None, "deep": None})
    await gizmos.post("deep", spec={"deep": {}, "list": [{}, {"p": "UDP"}], "inner": {"n": 1}})
    await side.ask("PATCH", f"{gizmos.path}/deep", {"spec": {"a": None, "inner": None}}, kind=MERGE)
    changed = definition(
        gizmos.group, root({**schema["properties"]["spec"]["properties"], "new": {"type": "string", "default": "now"}})
    )
    await side.quietly("PATCH", gizmos.definition, {"spec": changed["spec"]}, kind=MERGE)
    for _ in range(100):
        found = await side.quietly("GET", f"{gizmos.path}/deep")
        if "new" in found.body["spec"]:
            break
        await asyncio.sleep(0.05)
    await side.ask("GET", f"{gizmos.path}/deep")
    await gizmos.drop()


async def custom_columns(side: Side) -> None:
    """Tables by additionalPrinterColumns."""
    gizmos = Gizmos(side, "columns")
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    columns = [
        {"name": "Whole", "type": "integer", "jsonPath": ".spec.whole", "description": "How many."},
        {"name": "Part", "type": "number", "jsonPath": ".spec.part", "priority": 1},
        {"name": "Flag", "type": "boolean", "jsonPath": ".spec.flag"},
        {"name": "Text", "type": "string", "jsonPath": ".spec.text"},
        {"name": "Map", "type": "string", "jsonPath": ".spec.map"},
        {"name": "Each", "type": "string", "jsonPath": ".spec.list[*].n"},
        {"name": "First", "type": "string", "jsonPath": ".spec.list[0].n"},
        {"name": "Last", "type": "string", "jsonPath": ".spec.list[-1].n"},
        {"name": "Ready", "type": "string", "jsonPath": '.spec.conditions[?(@.type=="Ready")].status'},
        {"name": "Note", "type": "string", "jsonPath": r".metadata.annotations.example\.org/note"},
        {"name": "When", "type": "date", "jsonPath": ".spec.when"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Labels", "type": "string", "jsonPath": ".metadata.labels"},
    ]
    await gizmos.define({"type": "object", "properties": {"spec": anything}}, additionalPrinterColumns=columns)
    spec = {"whole": 3, "part": 1.5, "flag": True, "text": "t", "map": {"b": 1, "a": [1, "x"]}, "when": "never",
            "list": [{"n": 1}, {"n": "two"}],
            "conditions": [{"type": "X", "status": "a"}, {"type": "Ready", "status": "b"}]}  # fmt: skip
    full = gizmo(gizmos.group, "full", spec=spec)
    full["metadata"]["annotations"] = {"example.org/note": "hello"}
    await side.ask("POST", gizmos.path, full)
    await gizmos.post("empty")
    await gizmos.post("other", spec={"whole": 2.0, "part": 2, "flag": "yes", "text": 5, "map": "m", "list": {}})
    await side.ask("GET", gizmos.path, accept=TABLE)
    await side.ask("GET", f"{gizmos.path}/full", accept=TABLE)
    await gizmos.drop()


async def custom_applies(side: Side) -> None:
    """Server-side apply by list types and map types."""
    gizmos = Gizmos(side, "applies")
    item = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "v": {"type": "integer"}},
    }
    await gizmos.define(
        root(
            {
                "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                          "items": item},
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "plain": {"type": "array", "items": {"type": "string"}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic",
                          "additionalProperties": {"type": "string"}},
                "loose": {"type": "object", "additionalProperties": {"type": "string"}},
                "n": {"type": "integer"},
            }
        )
    )  # fmt: skip
    one = f"{gizmos.path}/g"

    async def apply(manager: str, force: str = "false", **spec: Any) -> None:
        answer = await side.ask(
            "PATCH", one, gizmo(gizmos.group, "g", spec=spec), kind=APPLY, fieldManager=manager, force=force
        )
        if answer.status < 300:
            managed = copy.deepcopy(answer.body["metadata"]["managedFields"])
            for entry in managed:
                entry.pop("time")
            side.tell(f"owners after {manager}", managed)

    await apply("a", keyed=[{"name": "x", "v": 1}], set=["p"], plain=["1"], whole={"k": "1"}, loose={"k": "1"}, n=1)
    await apply("b", keyed=[{"name": "y", "v": 2}], set=["q"], loose={"l": "2"})
    await apply("b", keyed=[{"name": "x", "v": 3}], plain=["2"], whole={"m": "1"}, loose={"k": "3"}, n=2)
    await apply("b", force="true", keyed=[{"name": "x", "v": 3}], n=2)
    await apply("a", set=["p"])
    await apply("a", keyed=[{"v": 1}])
    await apply("a", n="x")
    await apply("a", set=["p", "p"])
    await apply("a", keyed=[{"name": "x"}, {"name": "x"}])
    await side.ask("PATCH", one, {"spec": {"n": 9}}, kind=MERGE, fieldManager="c")
    await apply("b", n=2)
    await gizmos.drop()


async def custom_rules(side: Side) -> None:
    """CEL: what rules say of objects."""
    gizmos = Gizmos(side, "rules")
    schema = root(
        {
            "least": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "self > 0", "message": "must be positive"}]},
            "most": {"type": "integer"},
            "name": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "name stays", "reason": "FieldValueForbidden"}]},
            "steps": {"type": "array", "maxItems": 10, "items": {"type": "object", "properties": {
                "weight": {"type": "integer"}, "in": {"type": "string", "maxLength": 10}}, "x-kubernetes-validations": [
                {"rule": "self.weight <= 100",
                 "messageExpression": "self.weight > 200 ? 'far too much' : 'too much'"}]}},
            "map": {"type": "object", "maxProperties": 5, "additionalProperties": {
                "type": "string", "maxLength": 10, "x-kubernetes-validations": [{"rule": "self != 'x'"}]}},
            "when": {"type": "string", "format": "date-time"},
            "part": {"type": "number"},
            "port": {"x-kubernetes-int-or-string": True},
            "once": {"type": "string", "maxLength": 9, "x-kubernetes-validations": [
                {"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": True,
                 "message": "set once"}]},
        }
    )  # fmt: skip
    schema["properties"]["spec"]["x-kubernetes-validations"] = [
        {"rule": "!has(self.most) || !has(self.least) || self.least <= self.most"},
        {"rule": "!has(self.steps) || self.steps.all(s, !has(s.__in__) || s.__in__ != 'bad')", "message": "no bad step",
         "fieldPath": ".steps"},
        {"rule": "!has(self.when) || self.when > timestamp('2025-01-01T00:00:00Z')", "message": "too old"},
        {"rule": "!has(self.part) || self.part > 1", "message": "part", "reason": "FieldValueRequired"},
        {"rule": "!has(self.port) || (type(self.port) == int ? self.port > 10 : self.port.endsWith('%'))"},
        {"rule": "!has(self.least) || self.least != 13 || self.steps[7].weight == 1"},
        {"rule": "!has(self.least) || 10 / (self.least - 14) < 100"},
        {"rule": "!has(oldSelf.most) || has(self.most)", "message": "most stays"},
    ]  # fmt: skip
    await gizmos.define(schema)
    tried: list[dict[str, Any]] = [
        {"least": 0}, {"least": 3, "most": 2}, {"least": 3, "most": 4}, {"steps": [{"weight": 1}, {"weight": 101}]},
        {"steps": [{"weight": 1, "in": "bad"}]}, {"steps": [{"in": "x"}]}, {"map": {"k": "x"}},
        {"when": "2020-01-01T00:00:00Z"}, {"when": "2026-01-01T00:00:00Z"}, {"part": 1}, {"part": 1.5}, {"port": 5},
        {"port": 11}, {"port": "5"}, {"port": "5%"}, {"least": 13}, {"least": 13, "steps": []}, {"least": 14},
        {"least": "x"}, {"name": "one", "once": "a"},
    ]  # fmt: skip
    for number, spec in enumerate(tried):
        await gizmos.post(f"g{number}", spec=spec)
    last = f"{gizmos.path}/g{len(tried) - 1}"
    await side.ask("PATCH", last, {"spec": {"name": "two"}}, kind=MERGE)
    await side.ask("PATCH", last, {"spec": {"once": "b"}}, kind=MERGE)
    await side.ask("PATCH", last, {"spec": {"once": None}}, kind=MERGE)
    await side.ask("PATCH", last, {"spec": {"once": "c", "most": 5}}, kind=MERGE)
    await side.ask("PATCH", last, {"spec": {"most": None}}, kind=MERGE)
    await gizmos.drop()


async def custom_bad_rules(side: Side) -> None:
    """Rules that do not compile are refused with their definition."""
    for number, rule in enumerate(
        (
            {"rule": "self.missing == 1"},
            {"rule": "self.n == 'x'"},
            {"rule": "self.n"},
            {"rule": "self.n >"},
            {"rule": "nothing(self.n)"},
            {"rule": ""},
            {"rule": "self.n > 1", "message": " "},
            {"rule": "self.n > 1", "messageExpression": "self.n"},
            {"rule": "self.n > 1", "messageExpression": "nope"},
            {"rule": "self.n > 1", "fieldPath": ".x"},
            {"rule": "self.n > 1", "reason": "Odd"},
            {"rule": "self.n > 1", "optionalOldSelf": True},
            {"rule": "self.items[0].v > 1"},
            {"rule": "self.n.startsWith('x')"},
        )
    ):
        group = f"bad{number}.example.org"
        spec = {"n": {"type": "integer"}, "items": {"type": "array", "maxItems": 3, "items": {
            "type": "object", "properties": {"v": {"type": "string", "maxLength": 3}}}}}  # fmt: skip
        schema = root(spec)
        schema["properties"]["spec"]["x-kubernetes-validations"] = [rule]
        await side.ask("POST", DEFINITIONS, definition(group, schema), dryRun="All")
    schema = root({"l": {"type": "array", "maxItems": 3, "items": {"type": "integer", "x-kubernetes-validations": [
        {"rule": "self >= oldSelf"}]}}})  # fmt: skip
    await side.ask("POST", DEFINITIONS, definition("bad-old.example.org", schema), dryRun="All")


async def custom_bad_definitions(side: Side) -> None:
    """Definitions that are refused."""

    async def tried(name: str, change: Any) -> None:
        made = definition(f"{name}.example.org", root({"n": {"type": "integer"}}))
        change(made)
        await side.ask("POST", DEFINITIONS, made, dryRun="All")

    def version(made: dict[str, Any]) -> dict[str, Any]:
        return made["spec"]["versions"][0]

    def node(made: dict[str, Any]) -> dict[str, Any]:
        return version(made)["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]

    await tried("named", lambda made: made["metadata"].update(name="wrong"))
    await tried("scope", lambda made: made["spec"].update(scope="Anywhere"))
    await tried("no-scope", lambda made: made["spec"].pop("scope"))
    await tried("kind", lambda made: made["spec"]["names"].update(kind="not a kind"))
    await tried("listkind", lambda made: made["spec"]["names"].update(listKind="Gizmo"))
    await tried("short", lambda made: made["spec"]["names"].update(shortNames=["G_z"]))
    await tried("no-storage", lambda made: version(made).update(storage=False))
    await tried("version", lambda made: version(made).update(name="V1"))
    await tried("schemaless", lambda made: version(made).pop("schema"))
    await tried("untyped", lambda made: node(made).update(x={"description": "?"}))
    await tried("odd-type", lambda made: node(made).update(x={"type": "text"}))
    await tried("itemless", lambda made: node(made).update(x={"type": "array"}))
    await tried("default", lambda made: node(made).update(x={"type": "integer", "default": "five"}))
    await tried("unpruned", lambda made: node(made).update(x={"type": "object", "default": {"y": 1}}))
    await tried("keyless", lambda made: node(made).update(x={"type": "array", "x-kubernetes-list-type": "map",
                                                             "items": {"type": "object"}}))  # fmt: skip
    await tried(
        "unique", lambda made: node(made).update(x={"type": "array", "uniqueItems": True, "items": {"type": "string"}})
    )
    await tried("both", lambda made: node(made).update(x={"type": "object", "properties": {"a": {"type": "string"}},
                                                          "additionalProperties": {"type": "string"}}))  # fmt: skip
    await tried("nested", lambda made: node(made).update(x={"type": "string", "anyOf": [{"type": "string"}]}))
    await tried(
        "incomplete",
        lambda made: node(made).update(x={"type": "object", "anyOf": [{"properties": {"q": {"minimum": 1}}}]}),
    )
    await tried("pattern", lambda made: node(made).update(x={"type": "string", "pattern": "("}))
    await tried(
        "column",
        lambda made: version(made).update(additionalPrinterColumns=[{"name": "A", "type": "odd", "jsonPath": "spec"}]),
    )
    await tried(
        "scale",
        lambda made: version(made).update(
            subresources={"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.r"}}
        ),
    )
    await tried("selectable", lambda made: version(made).update(selectableFields=[{"jsonPath": ".spec.none"}]))
    await tried("format", lambda made: node(made).update(x={"type": "string", "format": "odd"}))
    await tried("unknown", lambda made: made["spec"].update(colour="red"))
    await tried("metadata", lambda made: version(made)["schema"]["openAPIV3Schema"]["properties"].update(
        metadata={"type": "object", "properties": {"labels": {"type": "object"}}}))  # fmt: skip


async def custom_versions(side: Side) -> None:
    """Two versions of one kind, the strategy None between them."""
    gizmos = Gizmos(side, "versions")
    made = definition(gizmos.group, root({"a": {"type": "string"}}))
    second = copy.deepcopy(made["spec"]["versions"][0])
    second |= {"name": "v1beta1", "storage": False, "deprecated": True}
    second["schema"] = {"openAPIV3Schema": root({"a": {"type": "string"}, "b": {"type": "string", "default": "x"}})}
    made["spec"]["versions"].insert(0, second)
    await side.quietly("POST", DEFINITIONS, made)
    await gizmos.established()
    old = gizmos.path.replace("/v1/", "/v1beta1/")
    await side.ask("GET", f"/apis/{gizmos.group}")
    await gizmos.post("g", spec={"a": "1"})
    await side.ask("GET", f"{old}/g")
    await side.ask("GET", old)
    await side.ask("POST", old, gizmo(gizmos.group, "h", "v1beta1", spec={"a": "2", "b": "3"}))
    await side.ask("GET", f"{gizmos.path}/h")
    await side.ask("PATCH", f"{old}/g", {"spec": {"a": "4"}}, kind=MERGE)
    await side.ask("POST", gizmos.path, gizmo(gizmos.group, "i", "v1beta1"))
    await side.ask("POST", gizmos.path, {**gizmo(gizmos.group, "i"), "kind": "Other"})
    await side.ask("POST", gizmos.path, {"metadata": {"name": "i"}})
    await side.ask("PATCH", gizmos.definition, {"spec": {"scope": "Cluster"}}, kind=MERGE)
    await gizmos.drop()


async def custom_ends(side: Side) -> None:
    """A definition waits for its instances' finalizers."""
    gizmos = Gizmos(side, "ends")
    await gizmos.define()
    held = gizmo(gizmos.group)
    held["metadata"]["finalizers"] = ["example.org/held", "bare"]
    await side.ask("POST", gizmos.path, held)
    await side.ask("DELETE", gizmos.definition)
    for _ in range(100):
        found = await side.quietly("GET", gizmos.path)
        if found.body["items"][0]["metadata"].get("deletionTimestamp"):
            break
        await asyncio.sleep(0.05)
    await side.ask("GET", f"{gizmos.path}/g")
    await side.ask("POST", gizmos.path, gizmo(gizmos.group, "late"))
    await side.ask("GET", f"/apis/{gizmos.group}/v1")
    await side.ask("PATCH", f"{gizmos.path}/g", {"metadata": {"finalizers": None}}, kind=MERGE)
    for _ in range(200):
        if (await side.quietly("GET", gizmos.definition)).status == 404:
            break
        await asyncio.sleep(0.05)
    await side.ask("GET", gizmos.definition)


async def custom_watches(side: Side) -> None:
    """Watch, list by pages, delete a collection."""
    gizmos = Gizmos(side, "watches")
    await gizmos.define(root({"n": {"type": "integer"}}), selectableFields=[{"jsonPath": ".spec.n"}])
    first = await gizmos.post("a", spec={"n": 1})
    await gizmos.post("b", spec={"n": 2})
    await side.ask("PATCH", f"{gizmos.path}/a", {"spec": {"n": 2}}, kind=MERGE)
    await side.ask("DELETE", f"{gizmos.path}/b")
    side.tell("watch", await side.watch(gizmos.path, 3, resourceVersion=first.rv))
    side.tell("by field", await side.watch(gizmos.path, 2, resourceVersion=first.rv, fieldSelector="spec.n=2"))
    for name in ("c", "d", "e"):
        await gizmos.post(name, spec={"n": 2})
    page = await side.ask("GET", gizmos.path, limit=2)
    await side.ask("GET", gizmos.path, **{"limit": 2, "continue": page.body["metadata"]["continue"]})
    await side.ask("GET", gizmos.path, fieldSelector="spec.n=2,metadata.name!=c")
    await side.ask("DELETE", gizmos.path, labelSelector="none=here")
    await side.ask("DELETE", gizmos.path)
    await side.ask("GET", gizmos.path)
    await gizmos.drop()


STORIES = [
    custom_lives,
    custom_documents,
    custom_status,
    custom_values,
    custom_unknown,
    custom_defaults,
    custom_columns,
    custom_applies,
    custom_rules,
    custom_bad_rules,
    custom_bad_definitions,
    custom_versions,
    custom_ends,
    custom_watches,
]
