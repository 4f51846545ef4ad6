"""Label selectors: kubectl's grammar, the JSON form, and what is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.model import Malformed
from tidegate.model.selector import Requirement, Selector, of_json, of_labels, parse

LABELS = {"app": "echo", "tier": "web", "tidegate.dev/x": "1"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=echo", True),
        ("app==echo,tier=web", True),
        ("app = echo , tier != db", True),
        ("app=other", False),
        ("app!=echo", False),
        ("absent!=anything", True),
        ("app in (echo, test)", True),
        ("app in (test)", False),
        ("app notin (test)", True),
        ("absent notin (a,b)", True),
        ("app,tier", True),
        ("absent", False),
        ("!absent", True),
        ("!app", False),
        ("tidegate.dev/x=1", True),
        ("app=", False),
        ("app in (echo),tier notin (db,cache),!absent", True),
    ],
)
def test_kubectls_grammar_is_understood(text, matches):
    assert parse(text).matches(LABELS) is matches


@pytest.mark.parametrize("text", ["app=echo=2", "a b", "app in echo", "=x", "app in (a b)", "-app", "a,,b", "app>1"])
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(Malformed, match="cannot read the requirement"):
        parse(text)


def test_the_json_form_is_understood():
    selector = of_json(
        {
            "matchLabels": {"app": "echo"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["web", "api"]},
                {"key": "absent", "operator": "DoesNotExist"},
                {"key": "tidegate.dev/x", "operator": "Exists", "values": []},
                {"key": "tier", "operator": "NotIn", "values": ["db"]},
            ],
        }
    )
    assert str(selector) == "app=echo,tier in (web,api),!absent,tidegate.dev/x,tier!=db"
    assert selector.matches(LABELS)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ([], "selector: Expected `object` at $"),
        ({"matchLabels": {"a": 1}}, "selector: Expected an object of strings at $.matchLabels"),
        ({"matchExpressions": [{}]}, "selector: Expected an object with a `key` at $.matchExpressions[0]"),
        (
            {"matchExpressions": [{"key": "a", "operator": "Like"}]},
            "selector: 'Like' is not a valid label selector operator at $.matchExpressions[0].operator",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "In"}]},
            "selector: In takes at least one value at $.matchExpressions[0].values",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
            "selector: Exists takes no value at $.matchExpressions[0].values",
        ),
    ],
)
def test_a_malformed_selector_is_named_with_its_path(obj, message):
    with pytest.raises(Malformed) as raised:
        of_json(obj)
    assert str(raised.value) == message


def test_the_unmet_requirements_are_those_that_keep_it_from_matching():
    assert parse("app=echo,tier=db,absent").unmet(LABELS) == parse("tier=db,absent").requirements


def test_keys_are_sorted_and_each_is_there_once():
    assert parse("b,a!=1,a=2").keys == ("a", "b")


KEYS = st.sampled_from(["app", "tier", "tidegate.dev/x"])
VALUES = st.sampled_from(["", "a", "b-1"])
REQUIREMENTS = st.one_of(
    st.builds(Requirement, KEYS, st.sampled_from(["In", "NotIn"]), st.sets(VALUES, min_size=1).map(sorted).map(tuple)),
    st.builds(Requirement, KEYS, st.sampled_from(["Exists", "DoesNotExist"])),
)


@given(st.lists(REQUIREMENTS, max_size=4))
def test_a_selector_reads_back_what_it_prints(requirements):
    selector = Selector(tuple(requirements))
    assert parse(str(selector)) == selector


@given(REQUIREMENTS, st.dictionaries(KEYS, VALUES))
def test_an_operator_and_its_negation_never_agree(requirement, labels):
    negation = {"In": "NotIn", "NotIn": "In", "Exists": "DoesNotExist", "DoesNotExist": "Exists"}
    opposite = Requirement(requirement.key, negation[requirement.operator], requirement.values)
    assert requirement.matches(labels) is not opposite.matches(labels)


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES))
def test_a_services_selector_matches_exactly_the_supersets_of_its_labels(wanted, labels):
    assert of_labels(wanted).matches(labels) == (wanted.items() <= labels.items())
