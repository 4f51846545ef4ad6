"""Drain objects are bounded, and never in a drain's way; Events are bounded, too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from fake_api import FakeApi

from tidegate import vtime
from tidegate.drain.ledger import Entry
from tidegate.kube.api import DRAINS, EVENTS
from tidegate.kube.errors import ApiError
from tidegate.operator.events import BURST, Recorder
from tidegate.operator.records import KEPT_SECONDS, WAITING_MAX, Records, surplus

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def record(number, namespace="shop", age=timedelta()):
    at = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metadata": {"name": f"d-{number}", "namespace": namespace, "creationTimestamp": at}}


def entry(number=0, **more):
    fields = {"id": f"{number:016x}", "namespace": "shop", "pod": f"web-{number}", "result": "verified", "seconds": 1.0}
    return Entry(**{**fields, **more})


def test_the_newest_of_each_namespace_stay_and_none_for_longer_than_a_month():
    minutes = [record(number, age=timedelta(minutes=number)) for number in range(5)]
    other = [record(9, "other", timedelta(minutes=50))]
    old = [record(10, "old", timedelta(seconds=KEPT_SECONDS + 1))]
    gone = [one["metadata"]["name"] for one in surplus([*minutes, *other, *old], 3, NOW)]
    assert gone == ["d-10", "d-4", "d-3"]


def play(story):
    return vtime.run(story(), limit_seconds=10_000)


def test_a_record_whose_answer_was_lost_is_written_once_and_one_that_is_refused_is_counted():
    async def story():
        api = FakeApi()
        records = Records(api, lambda: True)
        running = asyncio.create_task(records.run())
        api.lose_replies = 1
        records.write(entry(1))
        await asyncio.sleep(10)
        assert [key[0] for key in api.objects] == ["drains"] and records.dropped == 0

        async def no_room(*words, **named):
            raise ApiError(403, "Forbidden", "exceeded quota")

        api.create = no_room
        records.write(entry(2))
        await asyncio.sleep(10)
        assert records.dropped == 1 and "web-2" in records.failure
        running.cancel()

    play(story)


def test_what_amends_a_record_is_written_over_it():
    async def story():
        api = FakeApi()
        records = Records(api, lambda: True)
        running = asyncio.create_task(records.run())
        records.write(entry(1))
        records.write(entry(1, amends=True, result="bypassed", reason="it came back", regressions=("node-1",)))
        await asyncio.sleep(5)
        [stored] = [one for key, one in api.objects.items() if key[0] == DRAINS.plural]
        assert stored["status"]["result"] == "bypassed" and stored["status"]["regressions"] == ["node-1"]
        assert stored["spec"]["pod"] == "web-1"
        running.cancel()

    play(story)


def test_records_that_cannot_be_written_do_not_pile_up():
    async def story():
        records = Records(FakeApi(), lambda: True)
        for number in range(WAITING_MAX + 10):
            records.write(entry(number))
        assert records.dropped == 10 and len(records.read().entries) == WAITING_MAX

    play(story)


def test_an_event_that_is_said_again_is_counted_and_a_flood_is_cut_off():
    async def story():
        api = FakeApi()
        recorder = Recorder(api, "operator-a")
        running = asyncio.create_task(recorder.run())
        about = {"metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "1"}}
        for _ in range(3):
            recorder.write(about, "Normal", "Step", "the same")
        await asyncio.sleep(1)
        [stored] = [one for key, one in api.objects.items() if key[0] == EVENTS.plural]
        assert stored["count"] == 3
        for number in range(1000):
            recorder.write(about, "Warning", "Flood", f"line {number}")
        await asyncio.sleep(1)
        assert len(api.objects) <= BURST and recorder.dropped >= 970
        running.cancel()

    play(story)
