"""The definitions: drawn from the structs, and complete in words."""

from __future__ import annotations

import msgspec
import pytest

from tidegate.drain.ledger import Answer, Entry, InFlight
from tidegate.operator.crds import manifests
from tidegate.operator.drain_object import entry_of, name_of, object_of
from tidegate.release.spec import Spec


def spec_of(kind):
    found = next(one for one in manifests() if one["spec"]["names"]["kind"] == kind)
    return found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def undescribed(schema, place):
    if "description" not in schema and place:
        yield place
    for name, one in (schema.get("properties") or {}).items():
        yield from undescribed(one, f"{place}.{name}")
    items = schema.get("items") or {}
    for name, one in (items.get("properties") or {}).items():
        yield from undescribed(one, f"{place}[].{name}")


@pytest.mark.parametrize("kind", ["Release", "Drain", "Observer"])
def test_every_field_that_people_write_is_described(kind):
    assert list(undescribed(spec_of(kind), "spec")) == []


def test_every_field_of_a_spec_is_in_the_schema_under_its_own_name():
    fields = {one.encode_name for one in msgspec.structs.fields(Spec)}
    assert set(spec_of("Release")["properties"]) == fields


def test_an_entry_of_the_ledger_is_the_same_after_it_was_a_drain_object():
    entry = Entry(
        id="0123456789abcdef", at="2026-01-01T00:00:03.000Z", verb="drain", mode="gate", by="me@here", uid="u-1",
        namespace="shop", pod="web-1", node="node-1", services=("shop/web",), cut="2026-01-01T00:00:00.000Z",
        result="verified", seconds=3.0, epoch="main/7", stamp="node/node-1",
        answers=(Answer("node-1", "confirmed", 0.2, "nft", "2026-01-01T00:00:00.200Z", "gone", "d1"),),
        connections_at_cut=InFlight(2, ("10.0.0.1",)), connections_at_end=InFlight(0),
    )  # fmt: skip
    made = object_of(entry)
    assert entry_of(made) == entry
    assert made["metadata"]["name"] == name_of(entry) == "web-1-0123456789abcdef"
