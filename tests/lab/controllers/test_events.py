"""The event recorder: repeated things are counted, similar ones collapse, and a chatterbox is silenced."""

from __future__ import annotations

import asyncio
import random
import re

from tidegate import vtime
from tidegate.kube.api import EVENTS, Selection
from tidegate.lab.apiserver.local import LocalApi
from tidegate.lab.apiserver.server import ApiServer
from tidegate.lab.controllers.expiry import expire_events
from tidegate.lab.events import Event, Recorder, Source

ABOUT = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default", "uid": "u"}}


def told(story, source=Source("ctl")):
    """Run ``story(recorder)`` and list the events it left."""

    async def play():
        api = LocalApi(ApiServer(random.Random(0)))
        recorder = Recorder(api, source)
        async with vtime.Nursery() as nursery:
            nursery.start(recorder.run())
            nursery.start(expire_events(api))
            await story(recorder)
            await asyncio.sleep(0.1)
            found = (await api.list(EVENTS, Selection("default"))).items
            nursery.cancel()
        return found

    return vtime.run(play())


def test_the_same_thing_said_again_is_counted_on_one_event():
    async def story(recorder):
        for _ in range(3):
            recorder.event(ABOUT, Event("Warning", "Unhealthy", "it hurts", field_path="spec.containers{c}"))
            await asyncio.sleep(10)

    (event,) = told(story)
    assert (event["count"], event["type"], event["reason"]) == (3, "Warning", "Unhealthy")
    assert re.fullmatch(r"c\.[0-9a-f]{16}", event["metadata"]["name"])
    assert event["firstTimestamp"] == "2026-01-01T00:00:00Z"
    assert event["lastTimestamp"] == "2026-01-01T00:00:20Z"
    assert event["involvedObject"]["fieldPath"] == "spec.containers{c}"


def test_different_things_are_different_events_in_the_order_they_were_said():
    async def story(recorder):
        for text in ("one", "two"):
            recorder.event(ABOUT, Event("Normal", "Said", text))

    first, second = sorted(told(story), key=lambda one: one["metadata"]["name"])
    assert [first["message"], second["message"]] == ["one", "two"]


def test_after_ten_similar_messages_one_event_stands_for_the_rest():
    async def story(recorder):
        for index in range(15):
            recorder.event(ABOUT, Event("Normal", "Said", f"number {index}"))

    found = told(story)
    combined = [one for one in found if one["message"].startswith("(combined from similar events): ")]
    assert len(found) == 10
    assert [(one["count"], one["message"][-2:]) for one in combined] == [(6, "14")]


def test_one_object_hears_at_most_twenty_five_things_then_one_in_five_minutes():
    async def story(recorder):
        for _ in range(40):
            recorder.event(ABOUT, Event("Normal", "Said", "again"))
        await asyncio.sleep(301)
        recorder.event(ABOUT, Event("Normal", "Said", "again"))

    (event,) = told(story)
    assert event["count"] == 26


def test_the_modern_form_has_an_instant_and_an_action_and_a_series():
    async def story(recorder):
        for _ in range(2):
            recorder.event(ABOUT, Event("Warning", "FailedScheduling", "no", action="Scheduling"))

    (event,) = told(story, Source("default-scheduler", host="lab", modern=True))
    assert event["eventTime"] == "2026-01-01T00:00:00.000000Z"
    assert (event["action"], event["reportingInstance"], event["source"]) == ("Scheduling", "default-scheduler-lab", {})
    assert event["series"]["count"] == 2
    assert "count" not in event


def test_events_expire_an_hour_after_they_were_last_said_and_are_said_anew():
    async def story(recorder):
        recorder.event(ABOUT, Event("Normal", "Said", "early"))
        await asyncio.sleep(3000)
        recorder.event(ABOUT, Event("Normal", "Said", "late"))
        await asyncio.sleep(1300)

    (event,) = told(story)
    assert event["message"] == "late"

    async def anew(recorder):
        recorder.event(ABOUT, Event("Normal", "Said", "early"))
        await asyncio.sleep(5000)
        recorder.event(ABOUT, Event("Normal", "Said", "early"))

    (again,) = told(anew)
    assert again["firstTimestamp"] == again["lastTimestamp"] == "2026-01-01T01:23:20Z"
