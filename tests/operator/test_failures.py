"""What goes wrong around the operator: bad objects, missing objects, an API in bad weather, two of one workload."""

from __future__ import annotations

import asyncio

import pytest
from operator_stage import NS, Hand, asked, condition, deleted, play, seen, served, until
from stage import deployment
from stage import play as play_on_stage

from tidegate.kube import wire
from tidegate.kube.api import DEPLOYMENTS, DRAINS, EVENTS, OBSERVERS, RELEASES, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request


async def events_of(stage, name="echo"):
    found = (await stage.client.list(EVENTS, Selection(NS))).items
    return [one for one in found if one["involvedObject"] == {**one["involvedObject"], "kind": "Release", "name": name}]


async def refused(stage, reason, name="echo", within=20.0):
    """The message of its Accepted condition, once that is False for ``reason``."""
    began = stage.now
    while stage.now - began < within:
        obj = await seen(stage, name)
        found = condition(obj, "Accepted") if (obj.get("status") or {}).get("conditions") else None
        if found is not None and (found["status"], found["reason"]) == ("False", reason):
            return found["message"]
        await asyncio.sleep(0.1)
    raise AssertionError(obj)


def test_an_invalid_object_gets_a_condition_with_the_field_s_path_and_nothing_is_touched():
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, strategy="canary", canary={"steps": [{"weight": 150}]})
        assert "$.spec.canary.steps[0].weight: 150 is no percentage" in await refused(stage, "Invalid")
        before = (await stage.api.get(DEPLOYMENTS, "echo", NS))["metadata"]["generation"]
        assert before == 1
        assert [one["reason"] for one in await events_of(stage)] == ["Invalid"]
        await stage.client.patch(
            RELEASES,
            "echo",
            Patch({"spec": {"strategy": "rolling", "canary": None, "images": {"echo": "tidegate/echo:v2"}}}),
            NS,
        )
        done = await until(stage, "done")
        assert condition(done, "Accepted")["status"] == "True"
        await hand.leave()

    play(story, deployment(replicas=2), is_strict=False)


def test_the_definition_refuses_an_invalid_object_with_the_field_s_path():
    async def story(stage):
        with pytest.raises(ApiError, match=r"spec.canary.steps\[0\].weight: Invalid value: 150"):
            await asked(stage, strategy="canary", canary={"steps": [{"weight": 150}]})

    play(story, deployment(replicas=1))


def test_an_operator_runs_no_command_that_an_object_names():
    async def story(stage):
        hand = Hand(stage)
        analysis = [{"name": "a", "kind": "command", "command": ["touch", "/x"]}]
        await asked(
            stage, strategy="canary", canary={"service": "echo", "steps": [{"weight": 50}], "analysis": analysis}
        )
        assert "$.spec.canary.analysis[0].kind: command is of the command line" in await refused(stage, "Invalid")
        await hand.leave()

    play(story, deployment(replicas=1))


def test_a_release_of_a_deployment_that_is_not_there_waits_for_it_with_a_reason():
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, name="later", workload="later", images={"echo": "tidegate/echo:v2"})
        assert "there is no deployment/later" in await refused(stage, "NoDeployment", "later")
        writes = len(hand.wire.writes)
        await asyncio.sleep(300)
        assert len(hand.wire.writes) == writes, "what waits for a Deployment costs nothing"
        made = deployment(replicas=1)
        made["metadata"]["name"] = "later"
        for labels in (made["spec"]["selector"]["matchLabels"], made["spec"]["template"]["metadata"]["labels"]):
            labels["app"] = "later"
        await stage.api.create(DEPLOYMENTS, made)
        await until(stage, "done", name="later")
        await hand.leave()

    play(story, deployment(replicas=2))


def test_of_two_releases_of_one_deployment_the_older_acts_and_the_other_says_so():
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await asyncio.sleep(1.1)
        await asked(stage, name="other", images={"echo": "tidegate/echo:v3"})
        assert "release/echo is about deployment/echo already" in await refused(stage, "NotAlone", "other")
        await until(stage, "done")
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "tidegate/echo:v2"
        await deleted(stage)
        await until(stage, "done", name="other")
        await hand.leave()

    play(story, deployment(replicas=2))


@pytest.mark.parametrize("code", [409, 429, 500, 503])
def test_an_api_that_answers_with_errors_for_a_while_costs_time_and_nothing_else(code):
    async def story(stage):
        hand = Hand(stage)
        old = [one["metadata"]["name"] for one in await stage.pods()]
        count = 0

        async def weather(request):
            nonlocal count
            count += 1
            if "/leases/" not in request.path and count % 3:
                raise ApiError(code, {409: "Conflict", 429: "TooManyRequests"}.get(code, "InternalError"), "weather")

        await asyncio.sleep(1)
        hand.wire.fault = weather
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await asyncio.sleep(20)
        hand.wire.fault = None
        await until(stage, "done")
        assert {(stage.result(name) or {}).get("result") for name in old} == {"verified"}
        assert "a bug" not in "".join(hand.lines)
        await hand.leave()

    play(story, deployment(replicas=2))


def test_an_image_that_never_comes_up_halts_with_a_reason_and_the_old_pods_go_on_serving():
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, images={"echo": "nowhere/none:v9"}, progressSeconds=20)
        halted = await until(stage, "halted")
        assert condition(halted, "Healthy")["status"] == "False"
        assert "traffic stays on" in halted["status"]["reason"]
        ready = [one for one in await stage.pods() if stage.result(one["metadata"]["name"]) is None]
        assert len(ready) >= 3
        assert any(one["type"] == "Warning" and one["reason"] == "Halted" for one in await events_of(stage))
        await asked(stage, wish="abort")
        await until(stage, "aborted")
        await hand.leave()

    play(story)


def test_what_rests_costs_nothing_between_events():
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        await asyncio.sleep(60)
        calls, other = [], hand.wire.exchange

        async def counted(request):
            calls.append(f"{request.method} {request.path}")
            return await other(request)

        hand.wire.exchange = counted
        await asyncio.sleep(600)
        kinds = ("tidegate.dev/v1alpha1/releases", "tidegate.dev/v1alpha1/observers", "apps/v1/deployments")
        watched = [f"GET /apis/{one}" for one in kinds]
        assert [one for one in calls if "/leases/" not in one and one not in watched] == []
        assert sum(one in watched for one in calls) <= 9, "three watches, begun anew every five minutes"
        await hand.leave()

    play(story, deployment(replicas=1), limit=2000)


def test_an_observer_object_is_told_whether_it_is_asked():
    async def story(stage):
        hand = Hand(stage)
        for name, kind in (("good", "http"), ("bad", "haproxxy")):
            spec = {"kind": kind, "where": {"addresses": ["10.99.0.1:9000"]}, "options": {"path": "/"}}
            made = {"apiVersion": OBSERVERS.api_version, "kind": "Observer", "metadata": {"name": name}, "spec": spec}
            await stage.client.create(OBSERVERS, made)
        await asyncio.sleep(10)
        said = {
            one["metadata"]["name"]: condition(one, "Accepted") for one in (await stage.client.list(OBSERVERS)).items
        }
        assert "`$.spec.kind`" in said["bad"]["message"] and said["bad"]["status"] == "False"
        assert said["good"]["status"] in ("True", "False")
        await hand.leave()

    play(story, deployment(replicas=1))


def test_a_cluster_without_the_kinds_has_an_operator_that_is_ready_and_waits_for_them():
    async def story(stage):
        hand = Hand(stage)
        await asyncio.sleep(2)
        status, _, _ = await wire.fetch(wire.Peer("127.0.0.1", 18081), Request("GET", "/readyz"))
        assert status == 200
        await served(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        await hand.leave()

    play_on_stage(story, deployment(replicas=1), limit=900)


def test_what_is_drained_by_label_is_one_drain_object_and_not_two():
    async def story(stage):
        hand = Hand(stage)
        old = [one["metadata"]["name"] for one in await stage.pods()]
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done", 400)
        await asyncio.sleep(10)
        found = [one["spec"]["pod"] for one in (await stage.client.list(DRAINS, Selection(NS))).items]
        assert len(found) == len(set(found)) and set(old) <= set(found)
        await hand.leave()

    play(story, deployment(replicas=2, gate=False))
