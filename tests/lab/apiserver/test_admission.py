"""What happens to a pod before it is stored: accounts, priorities, quality of service."""

from __future__ import annotations

import pytest

from .api_world import POD, World, pod, story

CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def test_an_account_that_is_not_there_is_refused():
    async def tell(world: World) -> None:
        answer = await world.ask("POST", POD, pod(serviceAccountName="nosuch"))
        assert (answer.status, answer.reason) == (403, "Forbidden")
        assert answer.message == (
            'pods "p" is forbidden: error looking up service account default/nosuch: serviceaccount "nosuch" not found'
        )
        await world.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "nosuch"}})
        assert (await world.create(POD, pod(serviceAccountName="nosuch")))["spec"]["serviceAccount"] == "nosuch"

    story(tell)


def test_who_wants_no_token_gets_no_volume():
    async def tell(world: World) -> None:
        made = await world.create(POD, pod(automountServiceAccountToken=False))
        assert "volumes" not in made["spec"]

    story(tell)


def test_a_priority_comes_from_its_class():
    async def tell(world: World) -> None:
        assert (await world.create(POD, pod("plain")))["spec"]["priority"] == 0
        critical = await world.create(POD, pod("c", priorityClassName="system-node-critical"))
        assert critical["spec"]["priority"] == 2000001000
        unknown = await world.ask("POST", POD, pod("u", priorityClassName="nosuch"))
        assert unknown.message == 'pods "u" is forbidden: no PriorityClass with name nosuch was found'
        low = {"metadata": {"name": "low"}, "value": -5, "globalDefault": True, "preemptionPolicy": "Never"}
        await world.create(CLASSES, low)
        spec = (await world.create(POD, pod("d")))["spec"]
        assert (spec["priorityClassName"], spec["priority"], spec["preemptionPolicy"]) == ("low", -5, "Never")

    story(tell)


CPU_AND_MEMORY = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"limits": CPU_AND_MEMORY}, "Guaranteed"),
        ({"requests": CPU_AND_MEMORY, "limits": CPU_AND_MEMORY}, "Guaranteed"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}, "Burstable"),
    ],
)
def test_quality_of_service_follows_requests_and_limits(resources, quality):
    async def tell(world: World) -> None:
        asked = pod()
        asked["spec"]["containers"][0]["resources"] = resources
        assert (await world.create(POD, asked))["status"]["qosClass"] == quality

    story(tell)


def test_tolerations_the_pod_brings_are_kept():
    async def tell(world: World) -> None:
        own = {
            "key": "node.kubernetes.io/not-ready",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 5,
        }
        made = (await world.create(POD, pod(tolerations=[own])))["spec"]["tolerations"]
        assert [(held["key"], held["tolerationSeconds"]) for held in made] == [
            ("node.kubernetes.io/not-ready", 5),
            ("node.kubernetes.io/unreachable", 300),
        ]
        everything = (await world.create(POD, pod("q", tolerations=[{"operator": "Exists"}])))["spec"]["tolerations"]
        assert everything == [{"operator": "Exists"}]

    story(tell)
