"""Rules in CEL: what they say of objects, and which are refused with their definition."""

from __future__ import annotations

import pytest

from tidegate.lab.apiserver.custom import rules

from .api_world import MERGE, World, story
from .custom_world import DEFINITIONS, GIZMOS, JSON, complaints, define, definition, post, root

SPEC = {
    "least": {"type": "integer"},
    "most": {"type": "integer"},
    "part": {"type": "number"},
    "name": {"type": "string"},
    "when": {"type": "string", "format": "date-time"},
    "lasts": {"type": "string", "format": "duration"},
    "port": {"x-kubernetes-int-or-string": True},
    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "steps": {
        "type": "array",
        "items": {"type": "object", "properties": {"w": {"type": "integer"}, "in": {"type": "string"}}},
    },
    "a-b": {"type": "string"},
}


def ruled(*texts, **more):
    return root(SPEC, **{"x-kubernetes-validations": [{"rule": text, **more} for text in texts]})


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("self.least <= self.most", {"least": 1, "most": 1}, {"least": 2, "most": 1}),
        ("self.part > 1", {"part": 1.5}, {"part": 1}),
        ("self.name.matches('^a+$')", {"name": "aa"}, {"name": "b"}),
        (
            "self.when < timestamp('2027-01-01T00:00:00Z')",
            {"when": "2026-01-01T00:00:00Z"},
            {"when": "2028-01-01T00:00:00Z"},
        ),
        ("self.lasts <= duration('90s')", {"lasts": "1m30s"}, {"lasts": "2m"}),
        ("type(self.port) == int ? self.port > 10 : self.port.endsWith('%')", {"port": "5%"}, {"port": 5}),
        (
            "self.steps.all(s, s.w >= 0 && (!has(s.__in__) || s.__in__ != ''))",
            {"steps": [{"w": 1}]},
            {"steps": [{"w": -1}]},
        ),
        ("self.steps.map(s, s.w).sum() == 100", {"steps": [{"w": 60}, {"w": 40}]}, {"steps": [{"w": 60}]}),
        ("self.map.all(k, self.map[k].size() < 3)", {"map": {"a": "xx"}}, {"map": {"a": "xxx"}}),
        ("'a' in self.set && self.set.isSorted()", {"set": ["a", "b"]}, {"set": ["b", "a"]}),
        ("self.a__dash__b == 'x'", {"a-b": "x"}, {"a-b": "y"}),
        ("isURL(self.name) && url(self.name).getHostname() == 'x.org'", {"name": "https://x.org/"}, {"name": "x.org"}),
        ("quantity(self.name).isLessThan(quantity('1Gi'))", {"name": "500Mi"}, {"name": "2Gi"}),
        ("cidr('10.0.0.0/8').containsIP(self.name)", {"name": "10.1.1.1"}, {"name": "11.1.1.1"}),
        ("semver(self.name).isGreaterThan(semver('1.2.0'))", {"name": "1.10.0"}, {"name": "1.2.0-rc.1"}),
        ("self.name.find('[0-9]+') == '42'", {"name": "a42"}, {"name": "a"}),
        ("self.?most.orValue(7) == 7", {}, {"most": 8}),
        ("sets.equivalent(self.set, ['a', 'b'])", {"set": ["b", "a"]}, {"set": ["a"]}),
    ],
)
def test_a_rule_lets_one_pass_and_not_the_other(rule, good, bad):
    async def tell(world: World) -> None:
        await define(world, ruled(rule))
        assert await complaints(world, **good) == []
        assert await complaints(world, **bad) == [f"spec: Invalid value: failed rule: {rule}"]

    story(tell)


def test_a_rule_speaks_in_its_own_words_of_the_field_it_names():
    async def tell(world: World) -> None:
        said = {"message": "name is not for sale", "fieldPath": ".name", "reason": "FieldValueForbidden"}
        await define(world, ruled("self.name != 'x'", **said))
        assert await complaints(world, name="x") == ["spec.name: Forbidden: name is not for sale"]

    story(tell)


def test_a_message_can_be_computed_and_is_replaced_when_it_cannot():
    async def tell(world: World) -> None:
        expression = "self.most == 0 ? self.steps[3].__in__ : 'most is ' + string(self.most)"
        await define(world, ruled("self.most > 10", messageExpression=expression, message="too few"))
        assert await complaints(world, most=5) == ["spec: Invalid value: most is 5"]
        assert await complaints(world, most=0) == ["spec: Invalid value: too few"]

    story(tell)


def test_a_rule_that_fails_to_run_is_a_refusal():
    async def tell(world: World) -> None:
        await define(world, ruled("10 / self.most > 1", "self.steps[2].w == 1"))
        found = await complaints(world, most=0, steps=[])
        assert found == [
            'spec: Invalid value: "object": division by zero evaluating rule: 10 / self.most > 1',
            'spec: Invalid value: "object": index out of bounds: 2 evaluating rule: self.steps[2].w == 1',
        ]

    story(tell)


def test_rules_wait_until_the_values_fit():
    async def tell(world: World) -> None:
        await define(world, ruled("self.least > 0"))
        found = await complaints(world, least="x")
        assert found[1].startswith("<nil>: Invalid value: null: some validation rules were not checked")

    story(tell)


def test_a_number_beyond_all_integers_is_refused():
    async def tell(world: World) -> None:
        await define(world, ruled("!has(self.most) || self.most < 5", "!has(self.port) || self.port < 5"))
        for spec in ({"most": 2**70}, {"port": 2**70}):
            assert any("must be of type integer" in text for text in await complaints(world, **spec))

    story(tell)


def test_what_changes_is_compared_with_what_was():
    async def tell(world: World) -> None:
        await define(world, ruled("self.least >= oldSelf.least", "self.set == oldSelf.set"))
        await post(world, "g", least=5, set=["a", "b"])

        async def patched(**spec) -> int:
            return (await world.ask("PATCH", f"{GIZMOS}/g", {"spec": spec}, content_type=MERGE)).status

        assert await patched(least=6, set=["b", "a"]) == 200, "a set is equal in any order"
        assert await patched(least=4) == 422
        assert await patched(set=["a"]) == 422

    story(tell)


def test_an_optional_old_value_is_asked_about_from_the_first_day():
    async def tell(world: World) -> None:
        rule = "oldSelf.hasValue() ? oldSelf.value().most == self.most : self.most < 10"
        await define(world, ruled(rule, optionalOldSelf=True))
        assert (await post(world, "h", most=11)).status == 422
        assert (await post(world, "g", most=1)).status == 201
        assert (await world.ask("PATCH", f"{GIZMOS}/g", {"spec": {"most": 2}}, content_type=MERGE)).status == 422
        assert (await world.ask("PATCH", f"{GIZMOS}/g", {"spec": {"least": 2}}, content_type=MERGE)).status == 200

    story(tell)


def test_an_unchanged_part_is_not_held_against_a_new_rule():
    async def tell(world: World) -> None:
        async def ruling(*texts):
            node = {"type": "string", "x-kubernetes-validations": [{"rule": text} for text in texts]}
            return definition(root({"a": node, "b": {"type": "string"}}))

        await world.create(DEFINITIONS, await ruling("true"))
        await post(world, "g", a="old", b="1")
        versions = (await ruling("self == 'new'"))["spec"]["versions"]
        await world.patch(f"{DEFINITIONS}/gizmos.gizmo.example.org", {"spec": {"versions": versions}})
        await world.patch(f"{GIZMOS}/g", {"spec": {"b": "2"}})
        assert (await world.ask("PATCH", f"{GIZMOS}/g", {"spec": {"a": "x"}}, content_type=MERGE)).status == 422

    story(tell)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"rule": "self.mist > 1"}, "compilation failed: ERROR: <input>:1:5: undefined field 'mist'"),
        ({"rule": "self.name > 1"}, "found no matching overload for '_>_' applied to '(string, int)'"),
        ({"rule": "self.name.startsWith(1)"}, "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ({"rule": "self.most"}, "cel expression must evaluate to a bool"),
        ({"rule": "unheardOf(self)"}, "undeclared reference to 'unheardOf'"),
        ({"rule": "self.steps.sortBy(s, s.w)[0].w == 1"}, "undeclared reference to 'sortBy'"),
        ({"rule": "format.named('uuid').hasValue()"}, "undeclared reference to 'format'"),
        ({"rule": "self.most >"}, "Syntax error"),
        ({"rule": "self.most > 1", "messageExpression": "1"}, "messageExpression must evaluate to a string"),
        ({"rule": "self.most > 1", "fieldPath": ".none"}, "must be a valid path"),
        ({"rule": "self.most > 1", "optionalOldSelf": True}, "may not be set if oldSelf is not used in rule"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_definition(rule, why):
    async def tell(world: World) -> None:
        made = definition(root(SPEC, **{"x-kubernetes-validations": [rule]}))
        answer = await world.ask("POST", DEFINITIONS, made, content_type=JSON)
        assert (answer.status, why in answer.message) == (422, True), answer.message

    story(tell)


def test_without_the_library_a_definition_with_rules_is_refused(monkeypatch):
    monkeypatch.setattr(rules, "IS_AVAILABLE", False)

    async def tell(world: World) -> None:
        answer = await world.ask("POST", DEFINITIONS, definition(ruled("true")), content_type=JSON)
        assert (answer.status, "pip install 'tidegate[lab]'" in answer.message) == (422, True)
        await define(world)

    story(tell)
