"""The fence's writer: later each time, never adopting, never fooled by a lost reply."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from fake_api import FakeApi

from tidegate import vtime
from tidegate.agent.fencing import Fencing, epoch_by_clock
from tidegate.drain import fence
from tidegate.kube.api import ENDPOINTSLICES, SERVICES
from tidegate.kube.errors import ApiError, Unreachable
from tidegate.model.epoch import Epoch
from tidegate.model.names import SYSTEM_NAMESPACE, fence_name

NAME = fence.fence_slice(fence.first_epoch("main"))["metadata"]["name"]


def play(story):
    return vtime.run(story(FakeApi()), limit_seconds=10_000)


def shown(api):
    return fence.read_slice(api.peek(ENDPOINTSLICES, NAME, SYSTEM_NAMESPACE))


def test_the_first_write_installs_the_service_and_the_slice():
    async def story(api):
        write = await Fencing(api, "main").write()
        assert api.peek(SERVICES, fence_name("main"), SYSTEM_NAMESPACE)
        assert shown(api) == write.epoch

    play(story)


def test_every_write_is_later_than_the_one_before():
    async def story(api):
        fencing = Fencing(api, "main")
        epochs = [(await fencing.write()).epoch for _ in range(5)]
        assert all(later.reaches(earlier) and later != earlier for earlier, later in itertools.pairwise(epochs))

    play(story)


def test_an_epoch_counts_from_the_instant_its_write_was_sent():
    async def story(api):
        fencing = Fencing(api, "main")
        await fencing.write()
        before = asyncio.get_running_loop().time()
        write = await fencing.write()
        assert write.sent_at == before
        assert not write.counts_for(before)
        assert write.counts_for(before - 0.001)

    play(story)


def test_a_write_that_loses_a_conflict_is_no_write_and_the_next_is_later_than_the_winner():
    async def story(api):
        one, other = Fencing(api, "main"), Fencing(api, "main")
        await one.write()
        await other.write()
        with pytest.raises(ApiError):
            await one.write()
        winner = shown(api)
        write = await one.write()
        assert write.epoch.reaches(winner) and write.epoch != winner

    play(story)


def test_a_lost_reply_counts_for_nothing_and_its_epoch_is_not_used_again():
    async def story(api):
        fencing = Fencing(api, "main")
        await fencing.write()
        api.lose_replies = 1
        with pytest.raises(Unreachable):
            await fencing.write()
        lost = shown(api)
        write = await fencing.write()
        assert write.epoch.reaches(lost) and write.epoch != lost

    play(story)


def test_a_fence_made_anew_starts_later_than_any_epoch_written_before():
    async def story(api):
        old = Fencing(api, "main")
        for _ in range(30):
            last = (await old.write()).epoch
            await asyncio.sleep(0.1)
        api.drop(ENDPOINTSLICES, NAME, SYSTEM_NAMESPACE)
        write = await Fencing(api, "main").write()
        assert write.epoch.reaches(last) and write.epoch != last

    play(story)


def test_a_fence_set_back_by_somebody_is_never_followed_back():
    async def story(api):
        fencing = Fencing(api, "main")
        await asyncio.sleep(5)
        last = (await fencing.write()).epoch
        await asyncio.sleep(0.2)
        api.put(ENDPOINTSLICES, fence.fence_slice(Epoch("main", 0)))
        with pytest.raises(ApiError):
            await fencing.write()
        api.put(ENDPOINTSLICES, fence.fence_slice(Epoch("main", 0)))
        for writer in (Fencing(api, "main"), fencing):
            write = await writer.write()
            assert write.epoch.reaches(last) and write.epoch != last
            last = write.epoch

    play(story)


def test_an_emptied_slice_costs_no_number():
    async def story(api):
        fencing = Fencing(api, "main")
        last = (await fencing.write()).epoch
        broken = fence.fence_slice(last) | {"endpoints": []}
        api.put(ENDPOINTSLICES, broken)
        with pytest.raises(ApiError):
            await fencing.write()
        write = await fencing.write()
        assert write.epoch.reaches(last) and write.epoch != last

    play(story)


def test_the_clock_runs_ahead_of_the_writers():
    from datetime import UTC, datetime, timedelta

    start = datetime(2026, 11, 1, tzinfo=UTC)
    early, late = epoch_by_clock("main", start), epoch_by_clock("main", start + timedelta(seconds=60))
    assert late.number - early.number == 1200, "twice the ten a second that one writer writes"


NAMES = {"IPv4": fence.slice_name("main", "IPv4"), "IPv6": fence.slice_name("main", "IPv6")}


class DualStackApi(FakeApi):
    """An API server whose cluster has both families: it says so in every Service that prefers both."""

    async def create(self, resource, obj, namespace="", subresource=""):
        if resource is SERVICES and obj["spec"].get("ipFamilyPolicy") == "PreferDualStack":
            obj = obj | {"spec": obj["spec"] | {"ipFamilies": ["IPv4", "IPv6"]}}
        return await super().create(resource, obj, namespace, subresource)


def both(api):
    return [fence.read_slice(api.peek(ENDPOINTSLICES, name, SYSTEM_NAMESPACE)) for name in NAMES.values()]


def test_where_the_cluster_has_two_families_each_shows_every_epoch():
    async def story():
        api = DualStackApi()
        fencing = Fencing(api, "main")
        for _ in range(3):
            write = await fencing.write()
            assert both(api) == [write.epoch, write.epoch]
        assert fencing.slice_names == tuple(NAMES.values())

    vtime.run(story())


@pytest.mark.parametrize("family", NAMES)
def test_an_epoch_that_one_family_lost_is_no_write_and_the_next_is_later_in_both(family):
    async def story():
        api = DualStackApi()
        fencing = Fencing(api, "main")
        first = (await fencing.write()).epoch
        ahead = Epoch("main", first.number + 40)
        api.put(ENDPOINTSLICES, fence.fence_slice(ahead, family=family))
        with pytest.raises(ApiError):
            await fencing.write()
        write = await fencing.write()
        assert both(api) == [write.epoch, write.epoch]
        assert write.epoch.reaches(ahead) and write.epoch != ahead

    vtime.run(story())


@pytest.mark.parametrize("family", NAMES)
def test_a_fence_with_one_family_deleted_is_broken(family):
    async def story():
        api = DualStackApi()
        fencing = Fencing(api, "main")
        await fencing.write()

        def look():
            service = api.peek(SERVICES, fence_name("main"), SYSTEM_NAMESPACE)
            slices = {obj["metadata"]["name"]: obj for (plural, _, _), obj in api.objects.items() if "slice" in plural}
            return fencing.is_broken(service, map(slices.get, fencing.slice_names))

        assert not look()
        api.drop(ENDPOINTSLICES, NAMES[family], SYSTEM_NAMESPACE)
        assert look()
        write = await fencing.write()
        assert both(api) == [write.epoch, write.epoch] and not look()

    vtime.run(story())
