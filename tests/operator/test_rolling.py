"""A Release object, a Deployment, and the operator between them."""

from __future__ import annotations

from operator_stage import NS, Hand, asked, condition, play, until

from tidegate.kube.api import DEPLOYMENTS


async def image_of(stage):
    found = await stage.api.get(DEPLOYMENTS, "echo", NS)
    return found["spec"]["template"]["spec"]["containers"][0]["image"]


def test_a_release_object_rolls_its_deployment_and_every_old_pod_ends_verified():
    async def story(stage):
        hand = Hand(stage)
        old = [one["metadata"]["name"] for one in await stage.pods()]
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        done = await until(stage, "done")
        assert await image_of(stage) == "tidegate/echo:v2"
        assert {(stage.result(name) or {}).get("result") for name in old} == {"verified"}
        assert done["status"]["ready"] == "3/3"
        assert [condition(done, kind)["status"] for kind in ("Accepted", "Progressing", "Healthy", "Complete")] == [
            "True", "False", "True", "True",
        ]  # fmt: skip
        assert done["metadata"]["finalizers"] == ["tidegate.dev/release"]
        await hand.leave()

    play(story)
