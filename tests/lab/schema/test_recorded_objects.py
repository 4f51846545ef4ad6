"""Objects a real 1.36 server wrote (recorded_objects.json): to us they must be known, complete and valid."""

from __future__ import annotations

import copy
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidegate.lab.apiserver.schema import defaults, fieldsets, strict
from tidegate.lab.apiserver.schema.tables import table
from tidegate.lab.apiserver.schema.validation import validate

RECORDED = json.loads((Path(__file__).parent / "recorded_objects.json").read_text())
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
by_kind = pytest.mark.parametrize("obj", RECORDED, ids=lambda obj: obj["kind"])


@by_kind
def test_nothing_in_it_is_unknown_or_of_the_wrong_type(obj):
    assert strict.unknown_fields(obj["kind"], obj) == []
    assert strict.mismatch(obj["kind"], obj) == ""


@by_kind
def test_defaulting_adds_nothing_to_it(obj):
    again = copy.deepcopy(obj)
    defaults.apply(obj["kind"], again)
    assert again == obj


@by_kind
def test_it_is_valid_and_so_is_its_update_by_itself(obj):
    assert validate(obj["kind"], obj, None) == []
    assert validate(obj["kind"], obj, obj) == []


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def bent(obj, rng):
    """A copy with one place removed or replaced by something else."""
    made = copy.deepcopy(obj)
    path = rng.choice([p for p in places(obj) if p and p[0] not in ("kind", "apiVersion")])
    node = made
    for key in path[:-1]:
        node = node[key]
    if rng.random() < 0.3:
        del node[path[-1]]
    else:
        odd = [None, "", 0, -1, 2**40, "x y", True, [], {}, ["a"], [{}], {"a": {}}, {"": ""}, "25%", [None]]
        node[path[-1]] = rng.choice(odd)
    return made


@pytest.mark.parametrize("seed", range(12))
def test_whatever_fits_its_types_is_judged_without_a_crash(seed):
    rng = random.Random(seed)
    for _ in range(150):
        obj = bent(bent(rng.choice(RECORDED), rng), rng)
        if strict.mismatch(obj["kind"], obj) or not isinstance(obj.get("metadata"), dict):
            continue
        strict.prune(obj["kind"], obj)
        if "metadata" not in obj:
            continue
        defaults.apply(obj["kind"], obj)
        validate(obj["kind"], obj, None)
        old = next(known for known in RECORDED if known["kind"] == obj["kind"])
        validate(obj["kind"], obj, old)
        fieldsets.leaves(obj, obj["kind"])
        if obj["metadata"].get("name"):
            table(obj["kind"], [obj], NOW)
