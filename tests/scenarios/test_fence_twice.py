"""Where order and atomicity are not given, a drain waits for a second epoch, says why, and is right."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from scene import play
from stage import first

from tidegate.drain.fence import read_slice, slice_name
from tidegate.kube.api import ENDPOINTSLICES
from tidegate.lab.proxy import healthz
from tidegate.lab.proxy.shapes import SHAPES
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers.proxied import ProxiedCoordinator
from tidegate.rehearse import chaos


async def stragglers(stage):
    """What the coordinator says that drains wait for: a sentence for each node."""
    drains = (await ProxiedCoordinator(stage.client).status())["drains"]
    return [f"{one['node']} {one['verdict']}: {one['detail']}" for drain in drains for one in drain["stragglers"]]


def one_drain(proxy):
    async def story(stage):
        name = await first(stage)
        before = await shown(stage)
        result, seconds = await stage.end(name)
        assert result["result"] == "verified"
        return seconds, await shown(stage) - before

    return play(story, proxy=proxy)


async def shown(stage):
    """The number that the fence's slice has now."""
    return read_slice(await stage.api.get(ENDPOINTSLICES, slice_name("main", "IPv4"), SYSTEM_NAMESPACE)).number


def test_a_proxy_that_keeps_order_and_commits_at_once_is_believed_at_its_first_epoch():
    seconds, written = one_drain("nft-1.36")
    assert written == 1 and seconds < 1.5


@pytest.mark.parametrize("proxy", ["nft-1.30", "torn"])
def test_another_is_believed_at_its_second_which_costs_a_sync(proxy):
    seconds, written = one_drain(proxy)
    assert 2 <= written <= 4 and 1.0 < seconds < 3.5, (
        "one for each node that shows the first when the second is on its way"
    )


def test_while_the_second_is_awaited_the_plan_says_why():
    async def story(stage):
        name = await first(stage)
        await stage.delete(name)
        told = []
        while not any("a later one is awaited" in one for one in told):
            await asyncio.sleep(0.02)
            told = await stragglers(stage)
        assert any("pending: fence" in one and "its kube-proxy is older than v1.33" in one for one in told), told
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"

    play(story, proxy="nft-1.30")


def test_a_proxy_that_does_not_say_what_it_is_has_to_show_two(monkeypatch):
    """Its health port is shut, as with healthzBindAddress "" or behind a firewall."""

    async def story(stage):
        name = await first(stage)
        before = await shown(stage)
        result, _ = await stage.end(name)
        assert result["result"] == "verified"
        assert await shown(stage) - before >= 2

    monkeypatch.setattr(healthz, "HEALTHZ_PORT", 10_999)
    play(story)


@pytest.mark.parametrize("proxy", [name for name in SHAPES if name != "nft-1.36"])
def test_whatever_breaks_no_kind_of_proxy_makes_a_verified_drain_untrue(proxy):
    outcome = chaos.play(11, lab=replace(chaos.LAB, proxy=proxy))
    assert outcome.results.get("verified") and not outcome.contradictions and not outcome.false_verified
