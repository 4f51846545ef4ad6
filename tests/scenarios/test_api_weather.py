"""An API server that fails, refuses or hangs: a drain waits for it, and still says what is true."""

from __future__ import annotations

import asyncio

import pytest
from scene import failing, hanging, play, weather
from stage import NS, deployment, first, other_node

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES
from tidegate.kube.errors import ApiError


@pytest.fixture
def turn(monkeypatch):
    with weather(monkeypatch) as turn:
        yield turn


def refusing(method, part, code=409, reason="Conflict", times=10**9):
    """Refuses requests of ``method`` with ``part`` in their path, the first ``times`` of them."""
    left = [times]

    async def answer(request):
        if request.method == method and part in request.path and left[0] > 0:
            left[0] -= 1
            raise ApiError(code, reason, f"{reason} by the weather")

    return answer


WEATHERS = {
    "500": failing(500, "InternalError"),
    "409": failing(409, "Conflict"),
    "429": failing(429, "TooManyRequests"),
    "503": failing(503, "ServiceUnavailable"),
    "hangs": hanging,
}


@pytest.mark.parametrize("after", [0.0, 0.02, 0.5, 1.05])
@pytest.mark.parametrize("kind", sorted(WEATHERS))
def test_bad_weather_for_eight_seconds_is_waited_for(turn, kind, after):
    async def story(stage):
        name = await first(stage)
        await stage.delete(name)
        await asyncio.sleep(after)
        turn(WEATHERS[kind])
        await asyncio.sleep(8)
        turn(None)
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"
        assert stage.told_to_stop(name) > 0

    play(story)


@pytest.mark.parametrize("kind", sorted(WEATHERS))
def test_weather_that_stays_bad_ends_the_hold_in_time_and_is_never_called_verified(turn, kind):
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 3)
        await stage.delete(name)
        await asyncio.sleep(1)
        began = stage.now
        turn(WEATHERS[kind])
        await stage.gone(name)
        assert stage.now - began < 21
        assert (stage.result(name) or {}).get("result") != "verified"

    play(story, deployment(grace=30))


def test_a_record_that_loses_a_conflict_is_written_again(turn):
    """No record reads as bypassed: a proof must not be lost to somebody who annotates the pod at the same moment."""

    async def story(stage):
        name = await first(stage)
        turn(refusing("PATCH", f"/pods/{name}", times=5))
        result, _ = await stage.end(name)
        assert result["result"] == "verified"

    play(story)


def test_the_record_of_a_dead_hold_that_loses_a_conflict_is_written_again(turn):
    """Else the proof that was recorded a moment before the holder died would stand."""

    async def story(stage):
        name = await first(stage)
        node = (await stage.api.get(PODS, name, NS))["spec"]["nodeName"]
        stage.fault("proxy-freeze", await other_node(stage, name), 4)
        await stage.delete(name)
        await asyncio.sleep(1.5)
        turn(refusing("PATCH", f"/pods/{name}", times=2))
        stage.kill(f"tidegate-agent-{node}/holder")
        await stage.gone(name)
        assert stage.result(name)["result"] == "bypassed"

    play(story, deployment(env=(("ON_SIGTERM", "ignore"),)))


def test_one_pod_whose_owner_cannot_be_read_does_not_keep_the_others_waiting(turn):
    """Their last look is one list for all."""
    lonely = deployment(replicas=1)
    lonely["metadata"]["name"] = "lonely"
    lonely["spec"]["selector"]["matchLabels"] = lonely["spec"]["template"]["metadata"]["labels"] = {"app": "lonely"}

    async def story(stage):
        service = {"selector": {"app": "lonely"}, "ports": [{"port": 8080, "name": "http"}]}
        metadata = {"name": "lonely", "namespace": NS}
        await stage.api.create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
        await stage.api.create(DEPLOYMENTS, lonely)
        await stage.ready(4)
        names = sorted(pod["metadata"]["name"] for pod in await stage.pods())
        turn(refusing("GET", "/replicasets/", 403, "Forbidden"))
        await stage.api.delete(DEPLOYMENTS, "lonely", NS)
        await asyncio.sleep(0.5)
        result, seconds = await stage.end(names[0])
        assert names[0].startswith("echo") and names[3].startswith("lonely")
        assert (result["result"], seconds < 1.6) == ("verified", True)
        assert stage.result(names[3]) is None, "nobody knows whether a replacement comes: it is held"

    play(story)


@pytest.mark.parametrize("freeze", [16.5, 17.0, 17.3, 17.6, 18.2])
def test_an_api_that_hangs_just_before_the_deadline_does_not_take_the_apps_time(turn, freeze):
    """The last look hangs: the hold is answered when it must be, not when the look gives up."""

    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), freeze)
        began = vtime.now().timestamp()
        await stage.delete(name)
        await asyncio.sleep(freeze - 0.5)
        turn(hanging)
        await stage.gone(name)
        assert stage.told_to_stop(name) - began < 19.1
        assert (stage.result(name) or {}).get("result") != "verified"
        turn(None)

    play(story, deployment(grace=30))
