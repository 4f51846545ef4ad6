"""Rollouts in virtual time, told line by line: read the golden files as stories."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, EVENTS, PODS, REPLICASETS, SERVICES, Patch

from .controller_world import Cluster, Habits, deployment, image, service
from .transcript import Transcript


async def begun(cluster, obj=None):
    """A Deployment behind a Service, rolled out."""
    transcript = Transcript(cluster)
    await cluster.create(SERVICES, service())
    await cluster.create(DEPLOYMENTS, obj or deployment())
    await cluster.rolled_out()
    return transcript


def test_a_rolling_update_surges_by_one_and_never_dips(golden):
    async def story():
        async with Cluster() as cluster:
            transcript = await begun(cluster)
            transcript.tell("set image app:2")
            await cluster.patch(DEPLOYMENTS, "web", image("app:2"), "json")
            await cluster.rolled_out()
            await asyncio.sleep(1)
            assert await cluster.sizes() == {"1": 0, "2": 3}
            return transcript.text()

    golden("controllers/rolling-update.txt", vtime.run(story()))


def test_a_rollback_reuses_the_old_replicaset_and_remembers_its_revisions(golden):
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, deployment(2))
            await cluster.patch(DEPLOYMENTS, "web", image("app:2"), "json")
            await cluster.rolled_out()
            transcript = Transcript(cluster, DEPLOYMENTS, REPLICASETS)
            await asyncio.sleep(0.01)
            transcript.tell("rollout undo")
            await cluster.patch(DEPLOYMENTS, "web", image("app:1"), "json")
            await cluster.rolled_out()
            assert await cluster.sizes() == {"2": 0, "3": 2}
            again = next(one for one in await cluster.listed(REPLICASETS) if one["spec"]["replicas"])
            assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
            assert (await cluster.get(DEPLOYMENTS, "web"))["metadata"]["annotations"] == {
                "deployment.kubernetes.io/revision": "3"
            }
            return transcript.text()

    golden("controllers/rollback.txt", vtime.run(story()))


def test_a_paused_deployment_scales_but_does_not_roll_until_it_is_resumed(golden):
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, deployment(2))
            transcript = Transcript(cluster, DEPLOYMENTS, REPLICASETS)
            await asyncio.sleep(0.01)
            transcript.tell("rollout pause; set image app:2; scale to 3")
            await cluster.patch(DEPLOYMENTS, "web", {"spec": {"paused": True}})
            await cluster.patch(DEPLOYMENTS, "web", image("app:2"), "json")
            await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}})
            await asyncio.sleep(5)
            assert await cluster.sizes() == {"1": 3}
            transcript.tell("rollout resume")
            await cluster.patch(DEPLOYMENTS, "web", {"spec": {"paused": False}})
            await cluster.rolled_out()
            return transcript.text()

    golden("controllers/pause-resume.txt", vtime.run(story()))


def test_scaling_in_the_middle_of_a_rollout_is_shared_in_proportion(golden):
    async def story():
        stuck = Habits(ready=lambda pod: pod["spec"]["containers"][0]["image"] != "app:2")
        rolling = {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
        async with Cluster(habits=stuck) as cluster:
            await begun(cluster, deployment(10, strategy=rolling))
            await cluster.patch(DEPLOYMENTS, "web", image("app:2"), "json")
            await asyncio.sleep(5)
            assert await cluster.sizes() == {"1": 8, "2": 5}
            transcript = Transcript(cluster, DEPLOYMENTS, REPLICASETS)
            await asyncio.sleep(0.01)
            transcript.tell("scale to 15")
            await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 15}})
            await asyncio.sleep(5)
            # The worked example of the Kubernetes documentation: 3 of the 5 new replicas to the old set, 2 to the new.
            assert await cluster.sizes() == {"1": 11, "2": 7}
            return transcript.text()

    golden("controllers/scale-mid-rollout.txt", vtime.run(story()))


def test_recreate_starts_nothing_before_the_last_old_pod_is_over(golden):
    async def story():
        async with Cluster() as cluster:
            transcript = await begun(cluster, deployment(2, strategy={"type": "Recreate"}))
            transcript.tell("set image app:2")
            await cluster.patch(DEPLOYMENTS, "web", image("app:2"), "json")
            await cluster.rolled_out()
            return transcript.text()

    golden("controllers/recreate.txt", vtime.run(story()))


def test_a_rollout_without_progress_is_reported_at_its_deadline_and_not_before():
    async def story():
        broken = Habits(ready=lambda pod: pod["spec"]["containers"][0]["image"] != "app:broken")
        async with Cluster(habits=broken) as cluster:
            await begun(cluster, deployment(progressDeadlineSeconds=30))
            await cluster.patch(DEPLOYMENTS, "web", image("app:broken"), "json")

            async def is_late():
                conditions = (await cluster.get(DEPLOYMENTS, "web"))["status"]["conditions"]
                return [one for one in conditions if one["reason"] == "ProgressDeadlineExceeded"]

            assert 30 <= await cluster.until(is_late) <= 33
            (late,) = await is_late()
            assert (late["type"], late["status"]) == ("Progressing", "False")
            assert late["message"].endswith('" has timed out progressing.')
            assert await cluster.sizes() == {"1": 3, "2": 1}

    vtime.run(story())


def test_min_ready_seconds_hold_every_step_back():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DEPLOYMENTS, deployment(2, minReadySeconds=10))
            assert 9 <= await cluster.rolled_out() <= 12  # condition times have whole seconds
            await cluster.patch(DEPLOYMENTS, "web", image("app:2"), "json")
            assert 18 <= await cluster.rolled_out() <= 24

    vtime.run(story())


def test_old_revisions_beyond_the_limit_are_forgotten_oldest_first():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, deployment(1, revisionHistoryLimit=2))
            for edition in range(2, 6):
                await cluster.patch(DEPLOYMENTS, "web", image(f"app:{edition}"), "json")
                await cluster.rolled_out()
                await asyncio.sleep(2)
            assert await cluster.sizes() == {"3": 0, "4": 0, "5": 1}

    vtime.run(story())


def test_a_name_taken_by_a_foreign_replicaset_is_a_collision_and_draws_another_hash():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, deployment(1))
            (taken,) = await cluster.listed(REPLICASETS)
            await cluster.api.delete(DEPLOYMENTS, "web", "tides")
            await asyncio.sleep(5)
            assert await cluster.listed(REPLICASETS) == []
            squatter = {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": taken["metadata"]["name"]},
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": {"app": "other"}},
                    "template": {**deployment()["spec"]["template"], "metadata": {"labels": {"app": "other"}}},
                },
            }
            await cluster.create(REPLICASETS, squatter)
            await cluster.create(DEPLOYMENTS, deployment(1))
            await cluster.rolled_out()
            assert (await cluster.get(DEPLOYMENTS, "web"))["status"]["collisionCount"] == 1
            names = {one["metadata"]["name"] for one in await cluster.listed(REPLICASETS)}
            assert len(names) == 2

    vtime.run(story())


def test_a_deployment_adopts_a_matching_orphan_replicaset():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, deployment(2))
            (before,) = await cluster.listed(REPLICASETS)
            pods = {pod["metadata"]["uid"] for pod in await cluster.pods()}
            await cluster.api.patch(
                REPLICASETS,
                before["metadata"]["name"],
                Patch([{"op": "remove", "path": "/metadata/ownerReferences"}], "json"),
                "tides",
            )
            await asyncio.sleep(1)
            (after,) = await cluster.listed(REPLICASETS)
            assert after["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
            assert {pod["metadata"]["uid"] for pod in await cluster.pods()} == pods

    vtime.run(story())


def test_the_same_seed_tells_the_same_story_to_the_letter():
    async def story():
        async with Cluster(seed=7) as cluster:
            await begun(cluster)
            await cluster.patch(DEPLOYMENTS, "web", image("app:2"), "json")
            await cluster.rolled_out()
            everything = [await cluster.listed(one) for one in (DEPLOYMENTS, REPLICASETS, PODS, EVENTS)]
            return [[{**obj} for obj in objs] for objs in everything]

    assert vtime.run(story(), seed=3) == vtime.run(story(), seed=3)
