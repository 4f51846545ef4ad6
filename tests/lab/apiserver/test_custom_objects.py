"""Custom objects: schema, defaults, pruning, status, scale, columns, apply."""

from __future__ import annotations

import pytest

from tidegate import vtime
from tidegate.kube.api import Patch, Resource
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver.custom import formats, jsonpath

from .api_world import MERGE, STRATEGIC, TABLE, World, story
from .custom_world import APPLY, GIZMOS, GROUP, JSON, complaints, define, gizmo, post, root

RESOURCE = Resource(GROUP, "v1", "gizmos", "Gizmo")


def test_values_are_held_against_the_schema():
    async def tell(world: World) -> None:
        await define(
            world,
            root(
                {
                    "size": {"type": "integer", "minimum": 1},
                    "pick": {"type": "string", "enum": ["red", "green"]},
                    "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
                    "port": {"x-kubernetes-int-or-string": True},
                    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "need": {"type": "object", "required": ["this"], "properties": {"this": {"type": "string"}}},
                }
            ),
        )
        assert await complaints(world, size=0) == [
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"
        ]
        assert await complaints(world, size="big") == [
            'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"'
        ]
        assert await complaints(world, pick="blue") == [
            'spec.pick: Unsupported value: "blue": supported values: "red", "green"'
        ]
        assert await complaints(world, name="A") == [
            "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"
        ]
        assert await complaints(world, name="ab\n") != []
        assert await complaints(world, name="abcdef") == ["spec.name: Too long: may not be more than 5 bytes"]
        assert await complaints(world, set=["a", "a"]) == ['spec.set[1]: Duplicate value: "a"']
        assert await complaints(world, need={}) == ["spec.need.this: Required value"]
        assert await complaints(world, port=1) == await complaints(world, port="1%") == []
        assert len(await complaints(world, port=True)) == 1

    story(tell)


def test_what_was_wrong_before_may_stay_while_it_is_not_touched():
    async def tell(world: World) -> None:
        await define(world, root({"a": {"type": "string"}, "b": {"type": "string"}}))
        await post(world, "g", a="too long", b="x")
        stricter = {"a": {"type": "string", "maxLength": 3}, "b": {"type": "string"}}
        versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root(stricter)}}]
        await world.patch(
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gizmos.{GROUP}", {"spec": {"versions": versions}}
        )
        await world.patch(f"{GIZMOS}/g", {"spec": {"b": "y"}})
        answer = await world.ask("PATCH", f"{GIZMOS}/g", {"spec": {"a": "still too long"}}, content_type=MERGE)
        assert answer.status == 422

    story(tell)


def test_unknown_fields_go_and_are_spoken_of_as_asked():
    async def tell(world: World) -> None:
        kept = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        await define(world, root({"a": {"type": "string"}, "free": kept}))
        spec = {"a": "x", "b": 1, "free": {"any": {"thing": 1}}}
        ignored = await world.ask("POST", f"{GIZMOS}?fieldValidation=Ignore", gizmo("i", spec), content_type=JSON)
        assert ignored.body["spec"] == {"a": "x", "free": {"any": {"thing": 1}}}
        assert "warning" not in ignored.headers
        warned = await world.ask("POST", f"{GIZMOS}?fieldValidation=Warn", gizmo("w", spec), content_type=JSON)
        assert warned.headers["warning"] == '299 - "unknown field \\"spec.b\\""'
        strict = await world.ask("POST", f"{GIZMOS}?fieldValidation=Strict", gizmo("s", spec), content_type=JSON)
        assert (strict.status, strict.message) == (
            400,
            'Gizmo in version "v1" cannot be handled as a Gizmo: strict decoding error: unknown field "spec.b"',
        )

    story(tell)


def test_defaults_come_where_nothing_is_and_where_null_may_not_be():
    async def tell(world: World) -> None:
        inner = {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 5}}}
        nullable = {"type": "string", "nullable": True, "default": "m"}
        await define(world, root({"a": {"type": "string", "default": "x"}, "inner": inner, "maybe": nullable}))
        assert (await post(world, "e")).body["spec"] == {"a": "x", "inner": {"n": 5}, "maybe": "m"}
        nulls = await post(world, "n", a=None, maybe=None)
        assert nulls.body["spec"] == {"a": "x", "inner": {"n": 5}, "maybe": None}
        assert "spec" not in (await world.create(GIZMOS, gizmo("bare")))

    story(tell)


STATUS = root({"replicas": {"type": "integer"}})
STATUS["properties"]["status"] = {
    "type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
}  # fmt: skip
BELOW = {
    "status": {},
    "scale": {
        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
}  # fmt: skip


def test_status_and_spec_have_doors_of_their_own():
    async def tell(world: World) -> None:
        await define(world, STATUS, subresources=BELOW)
        made = await world.create(GIZMOS, gizmo("g", {"replicas": 1}, status={"replicas": 9}))
        assert "status" not in made and made["metadata"]["generation"] == 1
        body = {"metadata": {"labels": {"l": "v"}}, "spec": {"replicas": 5}, "status": {"replicas": 2}}
        found = await world.patch(f"{GIZMOS}/g/status", body)
        assert (found["spec"], found["status"], found["metadata"]["generation"]) == (
            {"replicas": 1},
            {"replicas": 2},
            1,
        )
        assert "labels" not in found["metadata"]
        found = await world.patch(f"{GIZMOS}/g", {"spec": {"replicas": 3}, "status": {"replicas": 7}})
        assert (found["status"], found["metadata"]["generation"]) == ({"replicas": 2}, 2)
        found = await world.patch(f"{GIZMOS}/g", {"metadata": {"labels": {"l": "v"}}})
        assert found["metadata"]["generation"] == 2
        wrong = await world.ask("PATCH", f"{GIZMOS}/g/status", {"status": {"replicas": "x"}}, content_type=MERGE)
        assert wrong.body["details"]["causes"][0]["field"] == "status.replicas"

    story(tell)


def test_a_kind_without_the_subresource_keeps_its_status_in_the_object():
    async def tell(world: World) -> None:
        await define(world, STATUS)
        made = await world.create(GIZMOS, gizmo("g", {"replicas": 1}, status={"replicas": 9}))
        assert made["status"] == {"replicas": 9}
        assert (await world.ask("GET", f"{GIZMOS}/g/status")).status == 404

    story(tell)


def test_its_scale_is_read_and_written_where_the_definition_says():
    async def tell(world: World) -> None:
        await define(world, STATUS, subresources=BELOW)
        await post(world, "g", replicas=1)
        await world.patch(f"{GIZMOS}/g/status", {"status": {"replicas": 1, "selector": "a=b"}})
        scale = await world.patch(f"{GIZMOS}/g/scale", {"spec": {"replicas": 4}})
        assert (scale["kind"], scale["spec"], scale["status"]) == (
            "Scale",
            {"replicas": 4},
            {"replicas": 1, "selector": "a=b"},
        )
        assert (await world.get(f"{GIZMOS}/g"))["spec"] == {"replicas": 4}
        await world.create(GIZMOS, gizmo("bare"))
        assert (await world.ask("GET", f"{GIZMOS}/bare/scale")).status == 500

    story(tell)


def test_columns_print_what_their_paths_lead_to():
    async def tell(world: World) -> None:
        free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        columns = [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Ready", "type": "string", "jsonPath": '.spec.conditions[?(@.type=="Ready")].status'},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
        ]
        await define(world, {"type": "object", "properties": {"spec": free}}, additionalPrinterColumns=columns)
        await post(world, "g", size=3, conditions=[{"type": "X", "status": "no"}, {"type": "Ready", "status": "True"}])
        await post(world, "h", size="many")
        table = await world.get(GIZMOS, accept=TABLE)
        assert [(one["name"], one["type"], one["priority"]) for one in table["columnDefinitions"]] == [
            ("Name", "string", 0), ("Size", "integer", 0), ("Ready", "string", 0), ("Age", "date", 1),
        ]  # fmt: skip
        assert [row["cells"] for row in table["rows"]] == [["g", 3, "True", "0s"], ["h", None, None, "0s"]]

    story(tell)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", [1]), (".a['b']", [1]), (".l[0].n", ["x"]), (".l[-1].n", ["y"]), (".l[*].n", ["x", "y"]),
        (".l[0:1].n", ["x"]), (".none.b", []), (".l[7]", []), (r".k\.e", [2]), ('.l[?(@.n=="y")].v', [20]),
        (".l[?(@.v>10)].n", ["y"]), (".l[?(@.w)].n", ["y"]), (".a.*", [1]),
    ],
)  # fmt: skip
def test_a_path_leads_where_kubectl_would_go(path, found):
    obj = {"a": {"b": 1}, "k.e": 2, "l": [{"n": "x", "v": 10}, {"n": "y", "v": 20, "w": 1}]}
    assert jsonpath.walk(jsonpath.parse(path), obj) == found


@pytest.mark.parametrize("path", ["..a", ".a[?(", ".a[", ".a[?(@.b==c)]"])
def test_a_path_that_cannot_be_read_is_said_to_be_none(path):
    with pytest.raises(jsonpath.BadPath):
        jsonpath.parse(path)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("datetime", "2026-01-01T00:00:00Z", "2026-13-01T00:00:00Z"), ("date", "2026-02-28", "2026-02-30"),
        ("duration", "1h30m", "1x"), ("ipv4", "10.0.0.1", "10.0.0.256"), ("ipv6", "fd00::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"), ("uri", "https://x/y", "not a uri"), ("byte", "aGk=", "a"),
        ("uuid", "90c192cf-d3ac-44af-8f21-ddb66cad4a26", "90c1"), ("email", "a@b.c", "a"),
        ("hexcolor", "#fff", "#ffff"),
        ("hostname", "a.example", "-a"), ("mac", "00:00:5e:00:53:01", "00"), ("isbn10", "0321751043", "0321751044"),
    ],
)  # fmt: skip
def test_a_format_is_checked(name, good, bad):
    assert formats.is_valid(name, good) and not formats.is_valid(name, bad)


ITEMS = {
    "keyed": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "v": {"type": "integer"}},
        },
    },
    "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
    "plain": {"type": "array", "items": {"type": "string"}},
}  # fmt: skip


def test_appliers_share_lists_by_key_and_fight_over_atomic_ones():
    async def tell(world: World) -> None:
        await define(world, root(ITEMS))

        async def apply(manager: str, **spec):
            target = f"{GIZMOS}/g?fieldManager={manager}"
            return await world.ask("PATCH", target, gizmo("g", spec), content_type=APPLY)

        await apply("a", keyed=[{"name": "x", "v": 1}], whole={"k": "1"}, plain=["1"])
        both = await apply("b", keyed=[{"name": "y", "v": 2}])
        assert [one["name"] for one in both.body["spec"]["keyed"]] == ["x", "y"]
        fight = await apply("b", whole={"m": "1"}, plain=["2"], keyed=[{"name": "x", "v": 3}])
        assert fight.status == 409
        assert [cause["field"] for cause in fight.body["details"]["causes"]] == [
            ".spec.plain", ".spec.whole", '.spec.keyed[name="x"].v',
        ]  # fmt: skip
        given_up = await apply("b", plain=["1"])
        assert [one["name"] for one in given_up.body["spec"]["keyed"]] == ["x"]
        nameless = await apply("b", keyed=[{"v": 1}])
        assert (nameless.status, "omits all key fields" in nameless.message) == (500, True)

    story(tell)


def test_a_strategic_patch_is_not_understood():
    async def tell(world: World) -> None:
        await define(world)
        await post(world, "g")
        answer = await world.ask("PATCH", f"{GIZMOS}/g", {"spec": {}}, content_type=STRATEGIC)
        assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")

    story(tell)


def test_an_update_says_which_version_it_is_of():
    async def tell(world: World) -> None:
        await define(world, root({"n": {"type": "integer"}}))
        made = (await post(world, "g", n=1)).body
        blind = await world.ask("PUT", f"{GIZMOS}/g", gizmo("g", {"n": 2}), content_type=JSON)
        assert (blind.status, blind.body["details"]["causes"][0]["field"]) == (422, "metadata.resourceVersion")
        assert (await world.ask("PUT", f"{GIZMOS}/g", {**made, "spec": {"n": 2}}, content_type=JSON)).status == 200
        assert (await world.ask("PUT", f"{GIZMOS}/g", {**made, "spec": {"n": 3}}, content_type=JSON)).status == 409

    story(tell)


def test_callers_in_the_process_meet_the_same_rules():
    async def tell(world: World) -> None:
        await define(world, root({"n": {"type": "integer", "default": 4}}))
        made = await world.api.create(RESOURCE, gizmo("g", {"odd": 1}), "default")
        assert made["spec"] == {"n": 4}
        changed = await world.api.patch(RESOURCE, "g", Patch({"spec": {"n": 5}}), "default")
        assert (changed["spec"], changed["metadata"]["generation"]) == ({"n": 5}, 2)
        with pytest.raises(ApiError) as caught:
            await world.api.patch(RESOURCE, "g", Patch({"spec": {"n": "x"}}), "default")
        assert caught.value.code == 422
        first = await anext(aiter(world.api.watch(RESOURCE, resource_version="0")))
        assert first.object["metadata"]["name"] == "g"

    story(tell)


def test_selected_fields_select():
    async def tell(world: World) -> None:
        schema = root({"color": {"type": "string"}})
        await define(world, schema, selectableFields=[{"jsonPath": ".spec.color"}])
        await post(world, "r", color="red")
        await post(world, "b", color="blue")
        found = await world.get(f"{GIZMOS}?fieldSelector=spec.color%3Dred")
        assert [one["metadata"]["name"] for one in found["items"]] == ["r"]
        other = await world.ask("GET", f"{GIZMOS}?fieldSelector=spec.size%3D1")
        assert (other.status, other.message) == (400, "field label not supported: spec.size")

    story(tell)


def test_time_is_the_servers():
    async def tell(world: World) -> None:
        await define(world)
        made = (await post(world, "g")).body
        assert made["metadata"]["creationTimestamp"] == vtime.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    story(tell)
