"""Writes are refused by the server when the pod is not as it was seen."""

from __future__ import annotations

import pytest
from fake_api import FakeApi

from tidegate import vtime
from tidegate.client import PodPlan, VerbOptions
from tidegate.client.holding import Holding
from tidegate.client.labelled import LabelGrip, NotAsSeen
from tidegate.client.options import Identity
from tidegate.drain.progress import begin
from tidegate.drain.state import Mode
from tidegate.engine import act
from tidegate.engine.observe import PodSeen
from tidegate.kube.api import PODS, Patch
from tidegate.kube.errors import ApiError
from tidegate.model import pod as pods
from tidegate.model.names import DrainRecord, DrainResult, Ending, decode_drain, decode_result
from tidegate.traffic import LabelCut

RECORD = DrainRecord(token="t", state="CUT", mode="label", labels={"app": "echo"})


def stored(labels=None, annotations=None):
    metadata = {"name": "echo-1", "namespace": "demo", "uid": "u"}
    metadata |= {"labels": labels} if labels else {}
    metadata |= {"annotations": annotations} if annotations else {}
    return {"metadata": metadata, "spec": {"containers": [{"name": "c"}]}}


def play(story, obj=None):
    async def whole():
        api = FakeApi()
        return await story(api, pods.decode(api.put(PODS, obj or stored({"app": "echo"}))))

    return vtime.run(whole())


def test_a_cut_changes_labels_and_record_in_one_write():
    async def story(api, pod):
        after = pods.decode(await act.relabel(api, pod, {"app": "cut"}, RECORD))
        assert after.labels == {"app": "cut"}
        assert decode_drain(after.annotations) == RECORD
        assert len(api.writes) == 1

    play(story)
    play(story, stored({"app": "echo"}, {"tidegate.dev/x": "1"}))


def test_a_pod_without_labels_or_annotations_can_be_tombstoned():
    async def story(api, pod):
        after = pods.decode(await act.relabel(api, pod, {"tidegate.dev/tombstone": "t"}, RECORD))
        assert after.labels == {"tidegate.dev/tombstone": "t"}

    play(story, stored())


def test_a_pod_that_changed_since_it_was_seen_is_not_cut():
    async def story(api, pod):
        await api.patch(PODS, "echo-1", Patch({"metadata": {"labels": {"x": "y"}}}), "demo")
        with pytest.raises(ApiError):
            await act.relabel(api, pod, {"app": "cut"}, RECORD)

    play(story)


def test_a_pod_of_the_same_name_is_not_ours():
    async def story(api, pod):
        api.drop(PODS, "echo-1", "demo")
        api.put(PODS, stored({"app": "echo"}) | {"metadata": {**stored()["metadata"], "uid": "another"}})
        for attempt in (
            act.relabel(api, pod, {"app": "cut"}, RECORD),
            act.record_result(api, pod, DrainResult(Ending.VERIFIED)),
            act.end(api, pod),
        ):
            with pytest.raises(ApiError):
                await attempt

    play(story)


def test_a_result_is_recorded_beside_what_is_there():
    async def story(api, pod):
        after = pods.decode(await act.record_result(api, pod, DrainResult(Ending.TIMED_OUT, "x", ("node-1",))))
        assert after.annotations["a"] == "b"
        assert decode_result(after.annotations).stragglers == ("node-1",)

    play(story, stored(annotations={"a": "b"}))


def test_a_pod_whose_labels_changed_after_the_last_look_is_not_deleted():
    async def story(api, pod):
        plan = PodPlan("drain", pod, LabelCut({"app": "cut"}, False, ()), None, (), (), (), (), (), True)
        holding = Holding(api, PodSeen(pod.uid, pod), RECORD, Identity())
        grip = LabelGrip(api, plan, VerbOptions(), holding)
        assert await grip.cut()
        back = await api.patch(PODS, "echo-1", Patch({"metadata": {"labels": {"app": "echo"}}}), "demo")
        grip.seen.update(back)
        with pytest.raises(NotAsSeen):
            await grip.release(begin("demo/echo-1", Mode.LABEL), DrainResult(Ending.VERIFIED))
        assert api.peek(PODS, "echo-1", "demo") is not None

    play(story)
