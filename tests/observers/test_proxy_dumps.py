"""Dumps of a real HAProxy 2.6.12 and a real Traefik 3.7.15 give the right routes; garbage never reads as clean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidegate.dataplane import haproxy, traefik
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

GOLDEN = Path(__file__).parents[1] / "golden"
FIRST, SECOND, THIRD = Endpoint("127.77.1.1"), Endpoint("127.77.1.2"), Endpoint("127.77.1.9")


def fence_at(port):
    return (Epoch.of_endpoint("main", Endpoint("198.18.0.1", port)),)


def state(name):
    return (GOLDEN / "haproxy" / f"2.6-{name}.state").read_text()


def services():
    return {one: (GOLDEN / "traefik" / f"3.7-file.{one}.json").read_text() for one in traefik.PROTOCOLS}


def edited(change, protocol="http"):
    """The real answers, with one changed: ``change(list of services)``."""
    bodies = services()
    found = json.loads(bodies[protocol])
    change({one["name"]: one for one in found}, found)
    return {**bodies, protocol: json.dumps(found)}


class TestHAProxy:
    def test_two_servers_are_two_routes_and_the_fence_shows_its_epoch(self):
        facts = haproxy.parse(state("two-servers"))
        assert not facts.unreadable
        assert facts.routes_to(FIRST) and facts.routes_to(SECOND)
        assert facts.fence == fence_at(4711)
        assert not facts.routes_to(Endpoint("127.0.0.1", 1)), "a slot in maintenance leads nowhere"

    def test_a_server_that_drains_is_a_route_still(self):
        """Requests that stick to it go there."""
        assert haproxy.parse(state("drain")).routes_to(SECOND)

    def test_a_slot_that_was_emptied_is_no_route(self):
        facts = haproxy.parse(state("removed"))
        assert not facts.unreadable and not facts.routes_to(SECOND) and facts.routes_to(FIRST)

    def test_a_slot_that_was_given_to_another_pod_leads_to_that_one_only(self):
        facts = haproxy.parse(state("slot-reused"))
        assert facts.routes_to(THIRD) and not facts.routes_to(SECOND)
        assert facts.fence == fence_at(4712)

    def test_a_slot_that_began_in_maintenance_and_was_filled_is_a_route(self):
        """Its state is 4 then, "in maintenance by configuration", and requests go to it (seen: 2.6.12)."""
        assert haproxy.parse(state("filled")).routes_to(Endpoint("127.77.1.3"))

    def test_another_installs_fence_and_a_name_that_only_begins_like_it_are_no_fence(self):
        text = state("two-servers").replace("tidegate-fence-main_fence", "tidegate-fence-main-2_fence")
        assert haproxy.parse(text).fence == ()
        assert haproxy.parse(text, "main-2").fence[0].install == "main-2"

    @pytest.mark.parametrize("cut", range(0, 1400, 7))
    def test_a_dump_cut_short_anywhere_is_unreadable(self, cut):
        whole = state("two-servers")
        assert cut >= len(whole) or haproxy.parse(whole[:cut]).unreadable

    @pytest.mark.parametrize(
        "text",
        ["", "\n", "1\n\n", "2\n# be_name\n\n", "Unknown command.\n\n", "garbage", "1\n# be_id srv_name\n1 2\n\n"],
    )
    def test_garbage_is_unreadable(self, text):
        assert haproxy.parse(text).unreadable

    def test_a_line_that_is_not_understood_is_unreadable_and_named(self):
        for wrong in (("8080 -", "99999 -"), ("127.77.1.2", "nowhere"), (" 2 0 1 1 0", " 2 999 1 1 0")):
            facts = haproxy.parse(state("two-servers").replace(*wrong))
            assert "line" in str(facts.unreadable[0]), wrong


class TestTraefik:
    def test_servers_of_every_protocol_are_routes(self):
        facts = traefik.parse(services(), ignore_names=True)
        assert not facts.unreadable
        for host in ("127.77.1.1", "127.77.1.2", "127.77.1.3", "127.77.1.4"):
            assert facts.routes_to(Endpoint(host)), host
        assert facts.routes_to(Endpoint("127.77.1.5", 53, "UDP"))
        assert facts.fence == fence_at(4711)

    def test_a_server_given_by_name_is_unreadable_unless_told_to_be_ignored(self):
        [problem] = traefik.parse(services()).unreadable
        assert "http://api.example.com" in str(problem)

    def test_a_fenced_server_is_a_route_only_where_requests_stick_to_it(self):
        def fence_both(named, found):
            for name in ("demo-echo-http@file", "stuck@file"):
                named[name]["loadBalancer"]["servers"][0]["fenced"] = True

        facts = traefik.parse(edited(fence_both), ignore_names=True)
        assert not facts.routes_to(FIRST)
        assert facts.routes_to(Endpoint("127.77.1.3"))

    def test_a_fence_of_one_provider_says_nothing_about_another(self):
        def second_provider(named, found):
            found.append({**named["demo-echo-http@file"], "name": "a-b-1@kubernetescrd", "provider": "kubernetescrd"})

        assert traefik.parse(edited(second_provider), ignore_names=True).fence == ()

    def test_the_order_of_services_does_not_matter(self):
        def backwards(named, found):
            found.reverse()

        facts = traefik.parse(edited(backwards), ignore_names=True)
        assert facts.routes_to(FIRST) and facts.fence == fence_at(4711)

    def test_a_kind_of_service_nobody_knows_is_unreadable(self):
        def unknown(named, found):
            named["mixed@file"]["type"] = "quantum"

        assert "quantum" in str(traefik.parse(edited(unknown), ignore_names=True).unreadable[0])

    @pytest.mark.parametrize("body", ["", "null", "{}", "[]", "[1]", '[{"name": "x"}]', "404 page not found", "[{"])
    def test_garbage_is_unreadable(self, body):
        assert traefik.parse({**services(), "http": body}, ignore_names=True).unreadable

    @pytest.mark.parametrize("protocol", traefik.PROTOCOLS)
    def test_an_answer_that_was_not_read_is_unreadable(self, protocol):
        bodies = services()
        del bodies[protocol]
        assert traefik.parse(bodies, ignore_names=True).unreadable

    @pytest.mark.parametrize(
        "url", ["http://", "http://:80", "ftp://10.0.0.1", "http://10.0.0.1:0", "http://u@10.0.0.1:1"]
    )
    def test_a_server_that_is_no_address_is_unreadable(self, url):
        def wrong(named, found):
            named["demo-echo-http@file"]["loadBalancer"]["servers"][0]["url"] = url

        assert traefik.parse(edited(wrong), ignore_names=True).unreadable

    def test_addresses_of_both_families_and_default_ports(self):
        def changed(named, found):
            named["demo-echo-http@file"]["loadBalancer"]["servers"] = [
                {"url": "https://[fd00::1]"}, {"url": "h2c://10.0.0.1:50051/"}
            ]  # fmt: skip

        facts = traefik.parse(edited(changed), ignore_names=True)
        assert facts.routes_to(Endpoint("fd00::1", 443)) and facts.routes_to(Endpoint("10.0.0.1", 50051))
