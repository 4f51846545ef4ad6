"""Dual stack as objects: two ClusterIPs, slices of both families; requests go by IPv4 alone."""

from __future__ import annotations

import ipaddress
import json

from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Patch, Selection

from .service_world import NS, play, pod

BOTH = {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}
PREFIX = ipaddress.ip_network("fd74:6964:6567:12::/112")


async def slices(world):
    found = (await world.api.list(ENDPOINTSLICES, Selection(NS, "kubernetes.io/service-name=web"))).items
    return {one["addressType"]: [e["addresses"][0] for e in one.get("endpoints") or ()] for one in found}


def test_a_service_of_both_families_has_two_addresses_and_answers_on_the_first():
    async def story(world):
        await world.pods(pod("p1", "node-1"))
        spec = await world.service(**BOTH)
        dump = json.loads(await world.lab.lab.kernel.dump("node-1"))
        known = {one["cluster_ip"] for one in dump["services"]}
        return spec["clusterIPs"], await world.ask(spec["clusterIPs"][0], 8080), known, await slices(world)

    (four, six), answered, known, found = play(story)
    assert (four.startswith("127.18."), ipaddress.ip_address(six) in PREFIX) == (True, True)
    assert (answered, six in known) == ("p1", False)
    assert (len(found["IPv4"]), found["IPv6"]) == (1, [])


def test_pods_of_a_dual_stack_lab_are_in_slices_of_both_families():
    async def story(world):
        await world.pods(pod("p1", "node-1"))
        await world.service(**BOTH)
        ips = [one["ip"] for one in (await world.api.get(PODS, "p1", NS))["status"]["podIPs"]]
        before = await slices(world)
        await world.api.patch(PODS, "p1", Patch({"metadata": {"labels": {"app": "cut"}}}), NS)
        await world.settled()
        return ips, before, await slices(world)

    (four, six), before, after = play(story, dual_stack=True)
    assert before == {"IPv4": [four], "IPv6": [six]}
    assert after == {"IPv4": [], "IPv6": []}


def test_an_ipv6_service_is_kept_and_never_bound():
    async def story(world):
        await world.pods(pod("p1", "node-1"))
        spec = await world.service(ipFamilies=["IPv6"], type="NodePort")
        dump = json.loads(await world.lab.lab.kernel.dump("node-1"))
        return spec["clusterIP"], [one["name"] for one in dump["services"]], world.lab.log_lines

    address, known, said = play(story, dual_stack=True)
    assert ipaddress.ip_address(address) in PREFIX
    assert "web" not in known
    assert said == []


def test_a_second_family_is_given_and_taken_away_later():
    async def story(world):
        spec = await world.service()
        more = await world.api.patch(SERVICES, "web", Patch({"spec": {"ipFamilyPolicy": "PreferDualStack"}}), NS)
        less = await world.api.patch(SERVICES, "web", Patch({"spec": {"ipFamilyPolicy": "SingleStack"}}), NS)
        return spec["clusterIPs"], more["spec"]["clusterIPs"], less["spec"]["clusterIPs"]

    first, more, less = play(story)
    assert (len(more), more[:1], less) == (2, first, first)
