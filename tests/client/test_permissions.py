"""The table of deeds: what a verb needs, and nothing a reader does not."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.client.permissions import VERBS, Deed, deeds, deeds_of, review
from tidegate.kube.errors import ApiError

WRITING = {"create", "patch", "delete", "update"}


@pytest.mark.parametrize("verb", ["status", "trace", "doctor", "verify"])
def test_the_reading_verbs_write_nothing(verb):
    asked = [deed for deed in deeds_of(verb, "demo") if deed.verb in WRITING]
    assert [str(deed) for deed in asked] == [
        "create pods/proxy in namespace tidegate-system",
        "create serviceaccounts/token named tidegate-caller in namespace tidegate-system",
    ]


@pytest.mark.parametrize("is_witnessed", [True, False])
def test_what_a_drain_asks_about_before_it_cuts_is_in_the_table(is_witnessed):
    assert set(deeds("demo", is_witnessed)) <= set(deeds_of("drain", "demo", is_witnessed))
    assert set(deeds("demo", is_witnessed, is_ending=False)) <= set(deeds_of("cut", "demo", is_witnessed))


def test_only_those_that_end_a_pod_delete_one():
    assert [verb for verb in VERBS if Deed("delete", "pods", "demo") in deeds_of(verb, "demo")] == [
        "restore", "drain", "drain node",
        "release rolling", "release bluegreen", "release canary", "release rainbow",
    ]  # fmt: skip


def test_a_rolling_release_makes_no_deployment_and_no_service():
    rolling, family = (set(deeds_of(f"release {strategy}", "demo")) for strategy in ("rolling", "bluegreen"))
    assert rolling < family
    assert {f"{deed.verb} {deed.resource}" for deed in family - rolling} == {
        "create deployments", "delete deployments", "create services", "delete services",
        "patch horizontalpodautoscalers",
    }  # fmt: skip


def test_without_agents_nobody_is_asked_through_a_proxy():
    assert not [deed for deed in deeds_of("cut", "demo", is_witnessed=False) if "proxy" in deed.resource]


def test_a_server_that_does_not_say_is_neither_yes_nor_no():
    class Server:
        async def create(self, resource, obj):
            asked = obj["spec"]["resourceAttributes"]
            if asked["resource"] == "nodes":
                raise ApiError(403, "Forbidden", "no reviews here")
            return {"status": {"allowed": (asked["resource"], asked["subresource"]) == ("pods", "proxy")}}

    asked = (Deed("list", "nodes", ""), Deed("get", "pods/proxy", "demo"), Deed("get", "pods", "demo"))
    assert list(asyncio.run(review(Server(), asked)).values()) == [None, True, False]
