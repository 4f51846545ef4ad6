"""The fence: epochs as endpoints, serial arithmetic, and when an epoch counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.drain.fence import (
    FenceWrite,
    fence_service,
    fence_slice,
    first_epoch,
    next_epoch,
    read_slice,
)
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import SIZE, Epoch, earliest

NUMBERS = st.integers(0, SIZE - 1)
STEPS = st.integers(1, (SIZE - 1) // 2)


@given(NUMBERS)
def test_an_epoch_is_read_back_from_its_endpoint_in_both_families(number):
    epoch = Epoch("k3f9", number)
    for endpoint in (epoch.endpoint4(), epoch.endpoint6()):
        assert 1 <= endpoint.port <= 65535
        assert Epoch.of_endpoint("k3f9", endpoint) == epoch


@given(NUMBERS, NUMBERS)
def test_two_epochs_never_share_an_endpoint(one, other):
    assert (Epoch("a", one).endpoint4() == Epoch("a", other).endpoint4()) == (one == other)
    assert (Epoch("a", one).endpoint6() == Epoch("a", other).endpoint6()) == (one == other)


@given(NUMBERS, STEPS)
def test_a_later_epoch_reaches_an_earlier_one_and_never_the_other_way_round(number, ahead):
    early, late = Epoch("a", number), Epoch("a", (number + ahead) % SIZE)
    assert late.reaches(early)
    assert not early.reaches(late)


@given(NUMBERS)
def test_an_epoch_reaches_itself_and_is_reached_by_the_next(number):
    epoch = Epoch("a", number)
    assert epoch.reaches(epoch)
    assert epoch.next().reaches(epoch)
    assert not epoch.reaches(epoch.next())


@given(NUMBERS, NUMBERS)
def test_epochs_of_two_installs_are_never_compared(one, other):
    assert not Epoch("a", one).reaches(Epoch("b", other))


@given(NUMBERS, st.lists(st.integers(0, 1000), min_size=1, max_size=5))
def test_of_several_families_the_one_furthest_behind_counts(number, ahead):
    epochs = tuple(Epoch("a", (number + step) % SIZE) for step in ahead)
    assert earliest(epochs) == Epoch("a", (number + min(ahead)) % SIZE)


def test_the_last_epoch_is_followed_by_the_first():
    assert Epoch("a", SIZE - 1).next() == Epoch("a", 0)


@pytest.mark.parametrize(
    ("number", "v4", "v6"),
    [
        (0, "198.18.0.0:1", "[2001:2::]:1"),
        (65534, "198.18.0.0:65535", "[2001:2::fffe]:65535"),
        (65535, "198.18.0.1:1", "[2001:2::ffff]:1"),
        (SIZE - 1, "198.19.255.255:65535", "[2001:2::1:fffd:ffff]:65535"),
    ],
)
def test_known_epochs_have_known_endpoints(number, v4, v6):
    epoch = Epoch("a", number)
    assert (str(epoch.endpoint4()), str(epoch.endpoint6())) == (v4, v6)


@pytest.mark.parametrize(
    "text", ["198.17.255.255:1", "198.20.0.0:1", "10.0.0.1:80", "198.18.0.0:0", "[2001:2::5]:5", "[2001:3::]:1"]
)
def test_other_endpoints_show_no_epoch(text):
    with pytest.raises(ValueError, match="shows no epoch"):
        Epoch.of_endpoint("a", Endpoint.parse(text))


@pytest.mark.parametrize("number", [-1, SIZE])
def test_no_epoch_lies_outside_the_circle(number):
    with pytest.raises(ValueError, match="no epoch has the number"):
        Epoch("a", number)


@pytest.mark.parametrize("text", ["7", "a/", "a/x", "a/-1", "a/\u0663"])
def test_what_is_no_epoch_is_not_read_as_one(text):
    with pytest.raises(ValueError):
        Epoch.parse(text)


def test_an_epoch_prints_as_it_is_read():
    assert str(Epoch.parse("k3f9/41")) == "k3f9/41"


def test_an_epoch_counts_only_for_lists_that_had_finished_before_it_was_sent():
    write = FenceWrite(Epoch("a", 7), sent_at=10.0)
    assert write.counts_for(9.9)
    assert not write.counts_for(10.0)
    assert not write.counts_for(10.1)
    assert not write.counts_for(None)


def test_a_writer_that_lost_never_adopts_what_it_finds():
    found, mine = Epoch("a", 9), Epoch("a", 7)
    assert next_epoch(found) == Epoch("a", 10)
    assert next_epoch(found, mine) == Epoch("a", 10)
    assert next_epoch(mine, found) == Epoch("a", 10)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_the_slice_shows_its_epoch_and_belongs_to_the_service(family):
    manifest = fence_slice(Epoch("k3f9", 41), resource_version="12", family=family)
    assert read_slice(manifest) == Epoch("k3f9", 41)
    assert manifest["metadata"]["resourceVersion"] == "12"
    service = fence_service("k3f9")["metadata"]["name"]
    assert manifest["metadata"]["labels"]["kubernetes.io/service-name"] == service


def test_a_new_fence_has_no_resource_version_and_starts_at_its_first_epoch():
    manifest = fence_slice(first_epoch("k3f9"))
    assert "resourceVersion" not in manifest["metadata"]
    assert read_slice(manifest).number == 0


@pytest.mark.parametrize("broken", [{}, {"metadata": None}, {"metadata": {"labels": {}}, "endpoints": [], "ports": []}])
def test_another_slice_is_not_read_as_a_fence(broken):
    with pytest.raises(ValueError, match="not a fence's slice"):
        read_slice(broken)


def test_a_fence_with_two_endpoints_is_not_read():
    manifest = fence_slice(Epoch("k3f9", 41))
    manifest["endpoints"] *= 2
    with pytest.raises(ValueError, match="not a fence's slice"):
        read_slice(manifest)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_slice_of_either_family_shows_the_epoch_in_its_own_addresses(family):
    made = fence_slice(Epoch("k3f9", 12345), family=family)
    [endpoint] = made["endpoints"]
    assert (":" in endpoint["addresses"][0]) == (family == "IPv6")
    assert made["addressType"] == family
    assert read_slice(made) == Epoch("k3f9", 12345)
