"""Jobs: each pod is counted once, a cut one is replaced, failures slow down, an end is an end."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import EVENTS, NAMESPACES, PODS, Deletion, Patch
from tidegate.kube.errors import ApiError
from tidegate.lab.controllers.job_rules import indexes_from, indexes_text
from tidegate.lab.controllers.kinds import DAEMONSETS, JOBS, STATEFULSETS

from .controller_world import NAMESPACE, Cluster
from .transcript import Transcript
from .workloads import UID_LABEL, daemon, finish, job, labelled, stateful, status

TOLD = (JOBS, PODS, EVENTS)


async def running(cluster):
    found = [one for one in await cluster.listed(PODS) if not one["metadata"].get("deletionTimestamp")]
    return [one["metadata"]["name"] for one in found if one["status"]["phase"] in ("Running", "Pending")]


async def outcome(cluster, name="work"):
    """The conditions of a Job once it is over, with its counts."""

    async def is_over():
        conditions = (await status(cluster, JOBS, name)).get("conditions") or ()
        return any(one["type"] in ("Complete", "Failed") for one in conditions)

    await cluster.until(is_over, 1000)
    found = await status(cluster, JOBS, name)
    conditions = [f"{one['type']}/{one['reason']}" for one in found["conditions"]]
    return conditions, found.get("succeeded", 0), found.get("failed", 0)


def test_a_job_runs_to_its_end_and_a_cut_pod_neither_counts_nor_is_waited_for(golden):
    async def story():
        async with Cluster() as cluster:
            transcript = Transcript(cluster, *TOLD)
            await asyncio.sleep(0.01)
            await cluster.create(JOBS, job(completions=3, parallelism=2))
            await asyncio.sleep(5)
            first, second = await running(cluster)
            transcript.tell("cut the first pod")
            await cluster.patch(PODS, first, labelled("cut", UID_LABEL))
            await asyncio.sleep(5)
            assert "ownerReferences" not in (await cluster.get(PODS, first))["metadata"]
            assert "finalizers" not in (await cluster.get(PODS, first))["metadata"]
            transcript.tell("it ends, and the second")
            await finish(cluster, first)
            await finish(cluster, second)
            await asyncio.sleep(5)
            assert (await status(cluster, JOBS, "work"))["succeeded"] == 1
            transcript.tell("all others end")
            for name in await running(cluster):
                await finish(cluster, name)
            assert await outcome(cluster) == (
                ["SuccessCriteriaMet/CompletionsReached", "Complete/CompletionsReached"], 3, 0,
            )  # fmt: skip
            return transcript.text()

    golden("controllers/job-cut-and-complete.txt", vtime.run(story()))


def test_failures_come_back_after_10_then_20_seconds_and_one_too_many_is_the_end():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(JOBS, job(backoffLimit=2))
            waits = []
            for _ in range(3):
                waits.append(await cluster.until(lambda: has_one(cluster), 60))
                await asyncio.sleep(1)
                await finish(cluster, (await running(cluster))[0], "Failed")
            return waits, await outcome(cluster)

    waits, end = vtime.run(story())
    assert waits[1:] == [pytest.approx(10, abs=1.1), pytest.approx(20, abs=1.1)]
    assert end == (["FailureTarget/BackoffLimitExceeded", "Failed/BackoffLimitExceeded"], 0, 3)


async def has_one(cluster):
    return len(await running(cluster)) == 1


def test_a_deadline_ends_a_job_and_its_pods():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(JOBS, job(parallelism=2, completions=2, activeDeadlineSeconds=30))
            found = await outcome(cluster)
            await asyncio.sleep(5)
            return found, await cluster.listed(PODS)

    found, left = vtime.run(story())
    assert found == (["FailureTarget/DeadlineExceeded", "Failed/DeadlineExceeded"], 0, 2)
    assert left == []


def test_an_indexed_job_runs_every_index_and_a_cut_index_again():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(JOBS, job(completions=3, parallelism=3, completionMode="Indexed"))
            await asyncio.sleep(3)
            first = (await running(cluster))[0]
            index = (await cluster.get(PODS, first))["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
            await cluster.patch(PODS, first, labelled("cut", UID_LABEL))
            await asyncio.sleep(3)
            pods = [one for one in await cluster.listed(PODS) if one["metadata"].get("ownerReferences")]
            again = [one for one in pods if one["spec"]["hostname"] == f"work-{index}"]
            assert len(pods) == 3
            assert len(again) == 1
            for one in pods:
                await finish(cluster, one["metadata"]["name"])
            await outcome(cluster)
            return (await status(cluster, JOBS, "work"))["completedIndexes"]

    assert vtime.run(story()) == "0-2"


def test_a_suspended_job_gives_its_pods_up_without_counting_them():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(JOBS, job(completions=2, parallelism=2))
            await asyncio.sleep(3)
            await cluster.patch(JOBS, "work", {"spec": {"suspend": True}})
            await asyncio.sleep(5)
            assert await cluster.listed(PODS) == []
            found = await status(cluster, JOBS, "work")
            assert "startTime" not in found
            await cluster.patch(JOBS, "work", {"spec": {"suspend": False}})
            await asyncio.sleep(5)
            return found.get("failed", 0), len(await running(cluster))

    assert vtime.run(story()) == (0, 2)


def test_exit_codes_that_are_to_be_ignored_do_not_count_and_one_may_fail_the_job():
    async def story(code):
        async with Cluster() as cluster:
            rules = [
                {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [7]}},
            ]
            await cluster.create(JOBS, job(backoffLimit=0, podFailurePolicy={"rules": rules}))
            await asyncio.sleep(3)
            name = (await running(cluster))[0]
            ended = {"exitCode": code, "finishedAt": "2026-01-01T00:00:03Z"}
            containers = [{"name": "c", "state": {"terminated": ended}}]
            status_patch = {"status": {"phase": "Failed", "containerStatuses": containers}}
            await cluster.api.patch(PODS, name, Patch(status_patch, "strategic", "status"), NAMESPACE)
            await asyncio.sleep(30)
            found = await status(cluster, JOBS, "work")
            return [one["reason"] for one in found.get("conditions") or ()], len(await running(cluster))

    assert vtime.run(story(42)) == ([], 1)
    assert vtime.run(story(7)) == (["PodFailurePolicy", "PodFailurePolicy"], 0)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_a_deleted_job_takes_its_pods_with_it(propagation):
    async def story():
        async with Cluster() as cluster:
            await cluster.create(JOBS, job(completions=2, parallelism=2))
            await asyncio.sleep(3)
            await cluster.api.delete(JOBS, "work", NAMESPACE, Deletion(propagation=propagation))
            await asyncio.sleep(40)
            return await cluster.listed(PODS), await cluster.listed(JOBS)

    assert vtime.run(story()) == ([], [])


def test_a_job_deleted_without_a_word_leaves_its_pods_free_of_the_finalizer():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(JOBS, job())
            await asyncio.sleep(3)
            await cluster.api.delete(JOBS, "work", NAMESPACE)
            await asyncio.sleep(5)
            return await cluster.listed(PODS)

    (left,) = vtime.run(story())
    assert "ownerReferences" not in left["metadata"]
    assert "finalizers" not in left["metadata"]


def test_a_namespace_goes_with_all_its_workloads():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(STATEFULSETS, stateful(2))
            await cluster.create(DAEMONSETS, {**daemon(), "metadata": {"name": "every"}})
            await cluster.create(JOBS, job(completions=2, parallelism=2))
            await asyncio.sleep(5)
            await cluster.api.delete(NAMESPACES, NAMESPACE)
            return await cluster.until(lambda: is_gone(cluster), 120)

    assert vtime.run(story()) < 60


async def is_gone(cluster):
    try:
        await cluster.api.get(NAMESPACES, NAMESPACE)
    except ApiError as error:
        return error.is_not_found
    return False


def test_indexes_are_written_as_the_real_controller_writes_them():
    assert indexes_text({0, 1, 3, 5, 6, 7}) == "0,1,3,5-7"
    assert indexes_from("0,1,3,5-7", 7) == {0, 1, 3, 5, 6}
    assert indexes_text(()) == ""
