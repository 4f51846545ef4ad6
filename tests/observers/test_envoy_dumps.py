"""Dumps of a real Envoy 1.40 give the right routes; every way a listed host may still be used is one; garbage never
reads as clean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidegate.dataplane import envoy
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

GOLDEN = Path(__file__).parents[1] / "golden" / "envoy"
FIRST, SECOND, CHECKED = Endpoint("127.77.1.1"), Endpoint("127.77.1.2"), Endpoint("127.77.1.3")
FENCE = "tidegate-system/tidegate-fence-main:fence"
IGNORED = ("straight",)


def fence_at(port):
    return (Epoch.of_endpoint("main", Endpoint("198.18.0.1", port)),)


def dump(name):
    return json.loads((GOLDEN / f"1.40-{name}.json").read_text())


def read(found, **options):
    bodies = {path: json.dumps(body) for path, body in found.items()}
    return envoy.parse(bodies, **{"ignore_names": True, "ignore_clusters": IGNORED, **options})


def edited(change, name="two-hosts"):
    """The real answers, with ``change(configuration of demo/echo, its status, all of it)`` made."""
    found = dump(name)
    [clusters] = [one for one in found[envoy.CONFIG]["configs"] if one["@type"].endswith("ClustersConfigDump")]
    config = {one["cluster"]["name"]: one["cluster"] for one in clusters["dynamic_active_clusters"]}
    status = {one["name"]: one for one in found[envoy.CLUSTERS]["cluster_statuses"]}
    change(config, status, found)
    return found


def without_checked(config, status, found):
    """The same pods are hosts of a second cluster; leave only the first in play."""
    status["demo/checked:http"]["host_statuses"] = []


def policy(kind):
    name = f"type.googleapis.com/envoy.extensions.load_balancing_policies.{kind}"
    return {"typed_extension_config": {"name": "x", "typed_config": {"@type": name}}}


def draining(panic=0, **config_fields):
    def change(config, status, found):
        without_checked(config, status, found)
        config["demo/echo:http"]["common_lb_config"] = {"healthy_panic_threshold": {"value": panic} if panic else {}}
        config["demo/echo:http"].update(config_fields)

    return edited(change, "draining")


def test_two_hosts_are_two_routes_and_the_fence_shows_its_epoch():
    facts = read(dump("two-hosts"))
    assert not facts.unreadable
    assert facts.routes_to(FIRST) and facts.routes_to(SECOND) and facts.fence == fence_at(4711)
    assert facts.routes_to(Endpoint("127.77.1.50")), "of the bootstrap, it has no fence and needs none"


def test_a_host_that_eds_took_away_is_no_route():
    found = dump("removed")
    assert not any("echo" in one.via for one in read(found).routes_to(SECOND)) and read(found).routes_to(FIRST)
    assert read(found).fence == fence_at(4712)


def test_but_while_its_health_check_passes_it_is_one():
    """Seen: with active health checks the host stays, ``pending_dynamic_removal``."""
    [route] = read(dump("removed")).routes_to(SECOND)
    assert "demo/checked" in route.via and "taken away, but its health check passes" in route.via


def test_once_the_check_fails_it_is_gone_and_one_that_is_still_meant_is_a_route():
    facts = read(dump("unhealthy"))
    assert not facts.unreadable and not facts.routes_to(SECOND)
    assert facts.routes_to(CHECKED), "it fails its check, and comes back by itself"


def test_a_draining_host_is_used_in_panic_and_so_a_route_unless_panic_is_off():
    """Seen: both of two hosts DRAINING, requests went to both."""
    [route] = [one for one in read(dump("all-draining")).routes_to(SECOND) if "echo" in one.via]
    assert "used in panic, below 50 % healthy" in route.via
    facts = read(draining(panic=0))
    assert not facts.unreadable and not facts.routes_to(SECOND) and facts.routes_to(FIRST)
    assert read(draining(panic=10)).routes_to(SECOND)


def test_the_runtime_rules_over_the_panic_threshold_of_clusters():
    found = draining(panic=0)
    found[envoy.RUNTIME]["entries"]["upstream.healthy_panic_threshold"] = {"final_value": "30", "layer_values": ["30"]}
    assert "below 30 %" in read(found).routes_to(SECOND)[0].via


@pytest.mark.parametrize(
    "fields",
    [
        {"common_lb_config": {"healthy_panic_threshold": {}, "override_host_status": {"statuses": ["DRAINING"]}}},
        {"load_balancing_policy": {"policies": []}},
        {"load_balancing_policy": {"policies": [policy("round_robin.v3.RoundRobin"), policy("mine.v3.Mine")]}},
    ],
)
def test_a_draining_host_that_something_else_may_choose_is_a_route(fields):
    assert read(draining(**fields)).routes_to(SECOND)


@pytest.mark.parametrize("kind", ["round_robin.v3.RoundRobin", "least_request.v3.LeastRequest", "maglev.v3.Maglev"])
def test_policies_that_were_seen_to_take_panic_from_the_cluster_leave_a_draining_host_alone(kind):
    obedient = {"load_balancing_policy": {"policies": [policy(kind)]}}
    assert not read(draining(**obedient)).routes_to(SECOND)
    assert read(draining(panic=50, **obedient)).routes_to(SECOND)


def test_a_fence_of_one_source_says_nothing_about_another():
    def elsewhere(config, status, found):
        config["demo/echo:http"]["eds_cluster_config"]["eds_config"] = {"ads": {}}

    assert read(edited(elsewhere)).fence == ()
    assert read(dump("two-hosts"), install="other").fence == ()


def test_a_cluster_without_hosts_needs_the_fence_of_its_source_too():
    """Its host may be on the way."""

    def elsewhere(config, status, found):
        config["demo/echo:http"]["eds_cluster_config"]["eds_config"] = {"ads": {}}

    assert read(edited(elsewhere, "empty")).fence == ()


@pytest.mark.parametrize(
    "name",
    [
        "outbound|1||tidegate-fence-main.tidegate-system.svc.cluster.local",
        "tidegate-system/tidegate-fence-main/fence/da39a3ee5e",
        "httproute/tidegate-system/tidegate-fence-main/rule/0",
    ],
)
def test_the_fence_is_known_by_the_names_that_controllers_give(name):
    def renamed(config, status, found):
        config[FENCE]["name"] = status[FENCE]["name"] = name

    assert read(edited(renamed)).fence == fence_at(4711)


def test_a_fence_of_another_install_is_hosts_like_others():
    def renamed(config, status, found):
        config[FENCE]["name"] = status[FENCE]["name"] = FENCE.replace("main", "main-2")

    facts = read(edited(renamed))
    assert facts.fence == () and facts.routes_to(Endpoint("198.18.0.1", 4711))


def test_clusters_that_lead_wherever_they_are_told_are_unreadable_unless_named():
    problems = {str(one) for one in read(dump("two-hosts"), ignore_names=False, ignore_clusters=()).unreadable}
    assert any("straight: of type ORIGINAL_DST" in one for one in problems)
    assert any("byname: its hosts are found by DNS" in one for one in problems) and len(problems) == 2


def test_a_flag_of_health_that_nobody_knows_is_unreadable():
    def flagged(config, status, found):
        status["demo/echo:http"]["host_statuses"][0]["health_status"]["resurrecting"] = True

    def said(config, status, found):
        status["demo/echo:http"]["host_statuses"][0]["health_status"]["eds_health_status"] = "WANING"

    assert read(edited(flagged)).unreadable
    assert "WANING" in str(read(edited(said)).unreadable[0])


def test_a_cluster_that_warms_or_comes_between_two_answers_is_unreadable():
    def warming(config, status, found):
        [clusters] = [one for one in found[envoy.CONFIG]["configs"] if one["@type"].endswith("ClustersConfigDump")]
        clusters["dynamic_warming_clusters"] = [clusters["dynamic_active_clusters"][0]]

    def gone(config, status, found):
        config["demo/echo:http"]["name"] = "demo/echo:other"

    assert "warming" in str(read(edited(warming)).unreadable[0])
    assert {str(one).partition(":")[0] for one in read(edited(gone)).unreadable} == {"envoy cluster demo/echo"}


def test_a_kind_of_cluster_nobody_knows_is_unreadable_and_one_that_only_points_to_others_is_nothing():
    def typed(kind):
        def change(config, status, found):
            del config["demo/echo:http"]["type"]
            config["demo/echo:http"]["cluster_type"] = {"name": kind}

        return change

    assert "redis" in str(read(edited(typed("envoy.clusters.redis"))).unreadable[0])
    assert not read(edited(typed("envoy.clusters.aggregate"))).unreadable


def test_further_addresses_of_a_host_are_routes():
    """Happy eyeballs: ``/clusters`` shows the first address only."""

    def more(config, status, found):
        [hosts] = [one for one in found[envoy.CONFIG]["configs"] if one["@type"].endswith("EndpointsConfigDump")]
        [echo] = [
            one
            for one in hosts["dynamic_endpoint_configs"]
            if one["endpoint_config"]["cluster_name"] == "demo/echo:http"
        ]
        address = {"address": {"socket_address": {"address": "fd00::7", "port_value": 8080}}}
        echo["endpoint_config"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["additional_addresses"] = [address]

    assert read(edited(more)).routes_to(Endpoint("fd00::7"))


@pytest.mark.parametrize("path", envoy.PATHS)
@pytest.mark.parametrize("body", ["", "null", "{}", "[]", "garbage", '{"cluster_statuses": [{}]}', '{"configs": [{}]}'])
def test_garbage_is_unreadable(path, body):
    bodies = {one: json.dumps(answer) for one, answer in dump("two-hosts").items()}
    assert envoy.parse({**bodies, path: body}, ignore_names=True, ignore_clusters=IGNORED).unreadable
    del bodies[path]
    assert envoy.parse(bodies, ignore_names=True, ignore_clusters=IGNORED).unreadable


@pytest.mark.parametrize("address", [{}, {"socket_address": {"address": "web", "port_value": 80}},
                                     {"socket_address": {"address": "10.0.0.1"}}, {"quantum": 1}])  # fmt: skip
def test_an_address_that_is_none_is_unreadable(address):
    def wrong(config, status, found):
        status["demo/echo:http"]["host_statuses"][0]["address"] = address

    assert read(edited(wrong)).unreadable
