"""The kernel's dump as its one strict reader sees it: the lab writes it, the core judges by it."""

from __future__ import annotations

from tidegate.dataplane import labkernel

from .kernel_world import NODE_1, POD_1, POD_2, World, dial, pod, story, web


def test_a_dump_with_routes_redirects_and_connections_is_readable(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        split = [web(POD_1), web(POD_2, cluster_ip="", node_port=30080)]
        await world.client.commit("node-1", split)
        await world.client.redirect("node-1", 15299, f"{NODE_1}:15299")
        caller = await dial()
        await caller.ask()
        facts = labkernel.parse(await world.client.dump("node-1"), "node-1")
        assert facts.unreadable == ()
        assert [(route.via, route.port) for route in facts.routes] == [
            ("cluster-ip", 80),
            ("node-port", 30080),
            ("redirect", 15299),
        ]
        assert [one.state for one in facts.tracked] == ["ESTABLISHED"]

    story(tmp_path, tell)
