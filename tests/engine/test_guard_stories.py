"""What refuses a cut: floors, budgets, policies, permissions; and that a refusal changes nothing."""

from __future__ import annotations

import asyncio

from stage import NS, deployment, first, play

from tidegate.client import VerbOptions, cut_pod, plan_pod
from tidegate.client.guards import NETWORKPOLICIES, PODMONITORS
from tidegate.kube.api import PODDISRUPTIONBUDGETS, PODS, SERVICES, Patch
from tidegate.kube.errors import ApiError
from tidegate.model.names import Ending, decode_drain

OPTIONS = VerbOptions(timeout_seconds=60, seed=0)
UNGATED = deployment(gate=False)
POLICY = {
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": NS},
    "spec": {"podSelector": {"matchLabels": {"app": "echo"}}, "ingress": [{}]},
}  # fmt: skip
BUDGET = {
    "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "all", "namespace": NS},
    "spec": {"selector": {"matchLabels": {"app": "echo"}}, "minAvailable": 3},
}  # fmt: skip


async def refused(stage, options=OPTIONS):
    """The reason a cut is refused with; nothing was changed."""
    name = await first(stage)
    result = await cut_pod(stage.client, NS, name, options)
    assert result.result is Ending.REFUSED, result
    found = (await stage.api.get(PODS, name, NS))["metadata"]
    assert found["labels"]["app"] == "echo" and not decode_drain(found.get("annotations") or {})
    return result.reason


def test_a_network_policy_on_the_label_is_refused_even_with_force_and_the_way_out_is_told():
    async def story(stage):
        await stage.api.create(NETWORKPOLICIES, POLICY)
        reason = await refused(stage, VerbOptions(timeout_seconds=60, seed=0, force=True))
        assert "NetworkPolicy web selects on app" in reason and "tidegate prepare" in reason

    play(story, UNGATED)


def test_a_budget_that_allows_nothing_refuses_and_force_does_it_and_is_recorded():
    async def story(stage):
        await stage.api.create(PODDISRUPTIONBUDGETS, BUDGET)
        await stage.ready(3)
        assert "PodDisruptionBudget all" in await refused(stage)
        name = await first(stage)
        result = await cut_pod(stage.client, NS, name, VerbOptions(timeout_seconds=60, seed=0, force=True))
        assert result.result is Ending.FORCED and "PodDisruptionBudget all" in result.reason
        found = await stage.api.get(PODS, name, NS)
        assert "PodDisruptionBudget all" in decode_drain(found["metadata"]["annotations"]).forced

    play(story, UNGATED)


def test_the_last_endpoint_is_refused():
    async def story(stage):
        await stage.scale(1)
        await asyncio.sleep(5)
        assert "would keep 0 other ready endpoints, the floor is 1" in await refused(stage)

    play(story, UNGATED)


def test_the_last_endpoint_in_a_zone_that_traffic_keeps_to_is_refused():
    async def story(stage):
        patch = {"spec": {"trafficDistribution": "PreferSameZone"}}
        await stage.api.patch(SERVICES, "echo", Patch(patch), NS)
        reason = await refused(stage)
        assert "would keep 0 other ready endpoints in zone " in reason

    play(story, UNGATED, zones=3)


def test_the_last_endpoint_of_its_node_under_policy_local_is_refused():
    async def story(stage):
        patch = {"spec": {"internalTrafficPolicy": "Local"}}
        await stage.api.patch(SERVICES, "echo", Patch(patch), NS)
        assert "would keep 0 other ready endpoints on node-" in await refused(stage)

    play(story, UNGATED)


def test_what_may_not_be_read_blocks_and_names_the_permission():
    async def story(stage):
        name = await first(stage)

        class Blind:
            """The API for somebody who may not list policies or monitors."""

            def __getattr__(self, name):
                return getattr(stage.client, name)

            async def list(self, resource, *given):
                if resource in (NETWORKPOLICIES, PODMONITORS):
                    raise ApiError(403, "Forbidden", "no")
                return await stage.client.list(resource, *given)

        plan = await plan_pod(Blind(), (NS, name), "cut", OPTIONS, True)
        assert plan.refused(OPTIONS) == (
            f"these credentials may not list networkpolicies.networking.k8s.io in namespace {NS}",
        )
        assert any("podmonitors.monitoring.coreos.com" in line for line in plan.consequences)

    play(story, UNGATED)
