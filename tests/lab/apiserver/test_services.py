"""Services: addresses and ports are drawn once, kept, and given back."""

from __future__ import annotations

from typing import Any

from .api_world import MERGE, SERVICE, World, story


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}, **spec}}


def test_a_service_draws_an_address_of_the_labs_range():
    async def tell(world: World) -> None:
        spec = (await world.create(SERVICE, service()))["spec"]
        assert spec["clusterIP"].startswith("127.18.")
        assert (spec["clusterIPs"], spec["ipFamilies"], spec["ipFamilyPolicy"]) == (
            [spec["clusterIP"]], ["IPv4"], "SingleStack",
        )  # fmt: skip
        assert (await world.create(SERVICE, service("other")))["spec"]["clusterIP"] != spec["clusterIP"]

    story(tell)


def test_an_address_asked_for_is_given_unless_taken_or_foreign():
    async def tell(world: World) -> None:
        assert (await world.create(SERVICE, service("a", clusterIP="127.18.7.7")))["spec"]["clusterIP"] == "127.18.7.7"
        taken = await world.ask("POST", SERVICE, service("b", clusterIP="127.18.7.7"))
        assert (taken.status, "provided IP is already allocated" in taken.message) == (422, True)
        foreign = await world.ask("POST", SERVICE, service("b", clusterIP="10.0.0.1"))
        assert (foreign.status, "does not match the current range" in foreign.message) == (422, True)

    story(tell)


def test_headless_and_external_services_draw_nothing():
    async def tell(world: World) -> None:
        headless = (await world.create(SERVICE, service("h", clusterIP="None")))["spec"]
        assert headless["clusterIPs"] == ["None"]
        external = {"type": "ExternalName", "externalName": "example.org", "ports": []}
        made = (await world.create(SERVICE, {"metadata": {"name": "e"}, "spec": external}))["spec"]
        assert "clusterIP" not in made

    story(tell)


def test_a_freed_address_is_not_handed_out_next():
    async def tell(world: World) -> None:
        first = (await world.create(SERVICE, service("a")))["spec"]["clusterIP"]
        await world.delete(f"{SERVICE}/a")
        assert (await world.create(SERVICE, service("b")))["spec"]["clusterIP"] != first

    story(tell)


def test_node_ports_are_drawn_kept_and_dropped_with_the_type():
    async def tell(world: World) -> None:
        made = await world.create(SERVICE, service(type="NodePort"))
        number = made["spec"]["ports"][0]["nodePort"]
        assert 30000 <= number <= 32767
        kept = await world.patch(f"{SERVICE}/web", {"spec": {"ports": [{"port": 80, "targetPort": 9}]}})
        assert kept["spec"]["ports"][0]["nodePort"] == number
        taken = service("b", type="NodePort", ports=[{"port": 80, "nodePort": number}])
        assert (await world.ask("POST", SERVICE, taken)).status == 422
        plain = await world.patch(f"{SERVICE}/web", {"spec": {"type": "ClusterIP"}})
        assert "nodePort" not in plain["spec"]["ports"][0]

    story(tell)


def test_a_local_load_balancer_gets_a_health_check_port():
    async def tell(world: World) -> None:
        made = await world.create(SERVICE, service(type="LoadBalancer", externalTrafficPolicy="Local"))
        assert 30000 <= made["spec"]["healthCheckNodePort"] <= 32767
        same = await world.patch(f"{SERVICE}/web", {"metadata": {"labels": {"a": "b"}}})
        assert same["spec"] == made["spec"]

    story(tell)


def test_an_address_never_changes():
    async def tell(world: World) -> None:
        made = await world.create(SERVICE, service())
        change = {"spec": {"clusterIP": "127.18.200.200"}}
        answer = await world.ask("PATCH", f"{SERVICE}/web", change, content_type=MERGE)
        assert (answer.status, "may not change once set" in answer.message) == (422, True)
        del made["spec"]["clusterIP"], made["spec"]["clusterIPs"]
        replaced = await world.ask("PUT", f"{SERVICE}/web", made)
        assert replaced.body["spec"]["clusterIP"].startswith("127.18.")

    story(tell)
