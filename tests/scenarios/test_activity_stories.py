"""The activity probe in every drain: a transcoder with hours of work is cut, finishes, and only then ends."""

from __future__ import annotations

import asyncio

import pytest
from scene import play
from stage import NS, deployment, first

from tidegate.client import VerbOptions, drain_pod
from tidegate.dataplane.sockets import NO_INBOUND
from tidegate.kube.api import PODS
from tidegate.model.names import ACTIVITY, Ending

HOURS = 3600.0
WORKED = ((ACTIVITY, "http:8080/activity"),)
COUNTED = ((ACTIVITY, "metric:8080/metrics#echo_jobs"),)


def options(**chosen):
    return VerbOptions(**({"seed": 0, "timeout_seconds": 6 * HOURS} | chosen))


async def work(stage, name, seconds):
    """Give the pod a job that nobody stays connected for."""
    pod = await stage.api.get(PODS, name, NS)
    reader, writer = await asyncio.open_connection(pod["status"]["podIP"], 8080)
    writer.write(f"GET /work?seconds={seconds} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 202")
    writer.close()


def event_at(stage, name, event):
    return next(e["at"] for e in stage.lab.journal() if e["event"] == event and e["pod"] == name)


@pytest.mark.parametrize(("annotations", "hours"), [(WORKED, 0.5), (COUNTED, 0.2)])
def test_a_transcoder_is_cut_at_once_finishes_its_work_and_only_then_ends(annotations, hours):
    async def story(stage):
        name = await first(stage)
        await work(stage, name, hours * HOURS)
        told = []
        running = asyncio.create_task(drain_pod(stage.client, NS, name, options(), told=told.append))
        await asyncio.sleep(5)
        pod = await stage.api.get(PODS, name, NS)
        assert pod["metadata"]["labels"]["app"] == "tidegate-cut", "no new work from the first second on"
        result = await running
        assert result.result is Ending.VERIFIED, result
        assert hours * HOURS - 9 < result.seconds < hours * HOURS + 15, "as soon as it is idle, within the probe's pace"
        await stage.gone(name)
        states = list(dict.fromkeys(drain.state.name for drain in told))
        assert states[:5] == ["SERVING", "CUT", "CLEAN", "FENCED", "UNROUTED"]

    play(story, deployment(gate=False, annotations=annotations), limit=5 * HOURS)


def test_at_the_deadline_the_busy_pod_is_kept_and_its_own_word_is_the_reason():
    async def story(stage):
        name = await first(stage)
        await work(stage, name, 9 * HOURS)
        result = await drain_pod(stage.client, NS, name, options(timeout_seconds=600))
        assert result.result is Ending.TIMED_OUT
        assert "activity http:8080/activity says busy: 1 job, 31" in result.reason
        await stage.api.get(PODS, name, NS)

    play(story, deployment(gate=False, annotations=WORKED), limit=3 * HOURS)


def test_a_probe_that_cannot_be_read_is_never_idle():
    async def story(stage):
        result = await drain_pod(stage.client, NS, await first(stage), options(timeout_seconds=30))
        assert result.result is Ending.TIMED_OUT
        assert "activity http:8080/nope cannot be read: it answered 404" in result.reason

    play(story, deployment(gate=False, annotations=((ACTIVITY, "http:8080/nope"),)))


def test_a_probe_that_nobody_understands_is_refused_before_anything_is_cut():
    async def story(stage):
        name = await first(stage)
        before = await stage.api.get(PODS, name, NS)
        result = await drain_pod(stage.client, NS, name, options())
        assert result.result is Ending.REFUSED
        assert "is no activity probe: write http:PORT/PATH" in result.reason
        assert await stage.api.get(PODS, name, NS) == before

    play(story, deployment(gate=False, annotations=((ACTIVITY, "ask nicely"),)))


def test_a_probe_given_by_hand_stays_on_the_pod_for_whoever_goes_on():
    async def story(stage):
        name = await first(stage)
        await work(stage, name, 600)
        given = options(activity="http:8080/activity", timeout_seconds=60)
        assert (await drain_pod(stage.client, NS, name, given)).result is Ending.TIMED_OUT
        result = await drain_pod(stage.client, NS, name, options())
        assert result.result is Ending.VERIFIED
        assert stage.annotations[name][ACTIVITY] == "http:8080/activity"

    play(story, deployment(gate=False), limit=3 * HOURS)


def test_without_agents_the_pod_is_still_asked_and_the_result_stays_assumed():
    async def story(stage):
        name = await first(stage)
        await work(stage, name, 600)
        result = await drain_pod(stage.client, NS, name, options())
        assert result.result is Ending.ASSUMED
        assert result.seconds > 540
        assert "settle time" in result.reason and "no agent to read the pod's sockets" in result.reason

    play(story, deployment(gate=False, annotations=WORKED), addons=(), limit=3 * HOURS)


# --- who has no sockets at all ---


def worker(name, **annotations):
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NS, "annotations": annotations},
        "spec": {"containers": [{"name": "w", "image": "worker:1", "command": ["consume", "the-queue"]}]},
    }  # fmt: skip


def ended(pod, **chosen):
    async def story(stage):
        await stage.api.create(PODS, pod)
        await asyncio.sleep(3)
        return await drain_pod(stage.client, NS, pod["metadata"]["name"], options(timeout_seconds=60, **chosen))

    return play(story, deployment(gate=False))


def test_a_queue_worker_without_sockets_is_not_called_quiet():
    result = ended(worker("worker"))
    assert (result.result, result.reason) == (Ending.ASSUMED, NO_INBOUND)


def test_a_queue_worker_without_sockets_is_judged_by_its_command_alone():
    idle = ended(worker("worker", **{ACTIVITY: "exec:true"}))
    assert (idle.result, idle.reason) == (Ending.VERIFIED, "")
    busy = ended(worker("worker", **{ACTIVITY: "exec:sh -c 'echo 7 left; exit 1'"}))
    assert (busy.result, busy.reason) == (
        Ending.TIMED_OUT,
        "activity exec:sh -c 'echo 7 left; exit 1' says busy: 7 left",
    )
    broken = ended(worker("worker", **{ACTIVITY: "exec:sh -c 'exit 3'"}))
    assert "cannot be read: exit code 3" in broken.reason


# --- gate mode ---


def test_the_gate_holds_a_working_pod_that_nobody_is_connected_to():
    async def story(stage):
        name = await first(stage)
        await work(stage, name, 20)
        result, seconds = await stage.end(name)
        assert result["result"] == "verified"
        assert 18 < seconds < 25

    play(story, deployment(annotations=WORKED))


def test_the_gate_holds_no_longer_than_its_grace_and_says_who_was_busy():
    async def story(stage):
        name = await first(stage)
        await work(stage, name, 900)
        result, seconds = await stage.end(name)
        assert result["result"] == "timed-out"
        assert "says busy: 1 job," in result["reason"]
        assert seconds < 49

    play(story, deployment(annotations=WORKED))


def test_an_agent_runs_no_commands_and_says_so():
    async def story(stage):
        result, _ = await stage.end(await first(stage))
        assert result["result"] == "timed-out"
        assert "an agent runs no commands in pods" in result["reason"]

    play(story, deployment(annotations=((ACTIVITY, "exec:true"),)))
