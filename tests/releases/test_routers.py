"""Routers' objects read, divided and put back; and Traefik's own account of its weights."""

from __future__ import annotations

import copy
import json

import pytest

from tidegate.client.release.routers import ROUTERS
from tidegate.client.release.routers.pair import RECORD, Pair
from tidegate.client.release.routers.shown import unlike
from tidegate.dataplane.traefikweights import shares
from tidegate.release.fork import Fork

PAIR = Pair("demo", "web", "web-canary")
HTTP, TRAEFIK = ROUTERS["httproute"], ROUTERS["traefik"]


def route(*rules, parents=()):
    return {
        "metadata": {"name": "web", "generation": 3},
        "spec": {"rules": list(rules)},
        "status": {"parents": parents},
    }


def rule(*backends, **more):
    return {**more, "backendRefs": [{"name": name, "port": 80, **rest} for name, rest in backends]}


def weighted(*backends):
    services = [{"name": name, "port": 80, **rest} for name, rest in backends]
    sticky = {"cookie": {"name": "lb"}}
    return {"metadata": {"name": "web"}, "spec": {"weighted": {"services": services, "sticky": sticky}}}


def patched(obj, changes):
    """A JSON patch applied, as far as routers write one."""
    made = copy.deepcopy(obj)
    for change in changes:
        *parents, last = [one.replace("~1", "/").replace("~0", "~") for one in change["path"].split("/")[1:]]
        where = made
        for one in parents:
            where = where[one]
        if change["op"] == "remove":
            del where[last]
        else:
            assert change["op"] == "add" or last in where
            where[last] = change["value"]
    return made


PLAIN = route(
    rule(("other", {}), matches=[{"path": {"value": "/other"}}]),
    rule(("web", {"weight": 7, "filters": [{"type": "X"}]}), name="main", timeouts={"request": "5s"}),
)


def test_an_httproute_is_divided_and_put_back_as_it_was():
    assert HTTP.fork(PLAIN, PAIR) == Fork("httproute/web", {"web": 100})
    made = patched(PLAIN, HTTP.divided(PLAIN, PAIR, 20, ""))
    assert HTTP.fork(made, PAIR) == Fork("httproute/web", {"web": 80, "web-canary": 20}, "", True)
    stable, canary = made["spec"]["rules"][1]["backendRefs"]
    assert (stable["weight"], canary["weight"]) == (80, 20)
    assert canary["port"] == 80 and canary["filters"] == [{"type": "X"}], "everything but the name is the stable one's"
    assert made["spec"]["rules"][0] == PLAIN["spec"]["rules"][0]
    further = patched(made, HTTP.divided(made, PAIR, 100, ""))
    assert HTTP.fork(further, PAIR).shares == {"web": 0, "web-canary": 100}
    back = patched(further, HTTP.restored(further, PAIR))
    assert back["spec"] == PLAIN["spec"] and not back["metadata"]["annotations"]


def test_a_header_is_a_rule_of_its_own_that_takes_precedence_by_one_header_more():
    made = patched(PLAIN, HTTP.divided(PLAIN, PAIR, 0, "x-canary=yes"))
    assert HTTP.fork(made, PAIR) == Fork("httproute/web", {"web": 100, "web-canary": 0}, "x-canary=yes", True)
    added = made["spec"]["rules"][2]
    assert [one["name"] for one in added["backendRefs"]] == ["web-canary"] and "name" not in added
    assert added["matches"] == [{"headers": [{"type": "Exact", "name": "x-canary", "value": "yes"}]}]
    assert added["timeouts"] == {"request": "5s"}
    again = patched(made, HTTP.divided(made, PAIR, 30, ""))
    assert len(again["spec"]["rules"]) == 2 and HTTP.fork(again, PAIR).header == ""
    assert patched(made, HTTP.restored(made, PAIR))["spec"] == PLAIN["spec"]


def test_weights_are_proportions():
    made = route(rule(("web", {"weight": 3}), ("web-canary", {"weight": 1})))
    assert HTTP.fork(made, PAIR).shares["web"] == 75


@pytest.mark.parametrize(
    ("obj", "why"),
    [
        (route(rule(("other", {}))), "httproute/web does not lead to svc/web"),
        (route(), "does not lead to svc/web"),
        (route(rule(("web", {}), ("old", {}))), "leads to old besides"),
        (route(rule(("web", {"weight": 0}))), "the weight 0: nobody is served"),
        (
            route(rule(("web", {})), rule(("web", {"weight": 1}), ("web-canary", {"weight": 1}))),
            r"different shares \(0 %, 50 %\)",
        ),
        (route(rule(("web", {"kind": "Bucket"}))), "does not lead to svc/web"),
        (route(rule(("web", {"namespace": "elsewhere"}))), "does not lead to svc/web"),
    ],
)
def test_an_httproute_that_cannot_be_divided_says_where(obj, why):
    with pytest.raises(ValueError, match=why):
        HTTP.fork(obj, PAIR)


def test_a_route_without_room_for_a_header_is_left_alone():
    full = route(*(rule(("web", {})) for _ in range(16)))
    with pytest.raises(ValueError, match="no room"):
        HTTP.divided(full, PAIR, 0, "a=b")


def parent(name, generation=3, **statuses):
    conditions = [
        {"type": kind, "status": statuses.get(kind, "True"), "observedGeneration": generation, "reason": "Because"}
        for kind in ("Accepted", "ResolvedRefs")
    ]
    return {"parentRef": {"name": "gate"}, "controllerName": name, "conditions": conditions}


def test_whose_status_is_older_than_the_object_is_behind():
    assert HTTP.behind(route(parents=[parent("a.io/x")])) == ()
    assert HTTP.behind(route()) == ("no gateway has taken it in yet",)
    late = HTTP.behind(route(parents=[parent("a.io/x"), parent("b.io/y", 2)]))
    assert len(late) == 2 and all(one.startswith("b.io/y (gateway/gate): ") for one in late)
    (refused,) = HTTP.behind(route(parents=[parent("a.io/x", ResolvedRefs="False")]))
    assert refused == "a.io/x (gateway/gate): ResolvedRefs is False for generation 3: Because"
    assert HTTP.controllers(route(parents=[parent("b.io/y"), parent("a.io/x")])) == ("a.io/x", "b.io/y")


@pytest.mark.parametrize("before", [{}, {"weight": 3}])
def test_a_traefikservice_is_divided_and_put_back_and_its_cookie_is_left_alone(before):
    plain = weighted(("web", before))
    made = patched(plain, TRAEFIK.divided(plain, PAIR, 20, ""))
    assert TRAEFIK.fork(made, PAIR) == Fork("traefikservice/web", {"web": 80, "web-canary": 20}, "", True)
    assert made["spec"]["weighted"]["sticky"] == plain["spec"]["weighted"]["sticky"]
    further = patched(made, TRAEFIK.divided(made, PAIR, 60, ""))
    assert patched(further, TRAEFIK.restored(further, PAIR))["spec"] == plain["spec"]


def test_a_traefikservice_that_cannot_be_divided_says_why():
    with pytest.raises(ValueError, match="not a weighted one"):
        TRAEFIK.fork({"metadata": {"name": "web"}, "spec": {"mirroring": {"name": "web"}}}, PAIR)
    with pytest.raises(ValueError, match="takes router httproute"):
        TRAEFIK.divided(weighted(("web", {})), PAIR, 0, "a=b")


def test_a_record_that_is_not_understood_still_says_that_a_release_writes_here():
    made = weighted(("web", {}), ("web-canary", {"weight": 1}))
    made["metadata"]["annotations"] = {RECORD: "{"}
    assert TRAEFIK.fork(made, PAIR).is_borrowed
    assert patched(made, TRAEFIK.restored(made, PAIR))["spec"]["weighted"]["services"] == [{"name": "web", "port": 80}]


GATEWAY = "httproute-demo-web-gw-demo-gate-ep-web-0-212bfd0c23ec290dc93d"


def gateway(*children, name=GATEWAY):
    """As Traefik 3.7.15 answers about a rule of an HTTPRoute."""
    services = [
        {"name": f"{name}-svc-demo-{child}-{index}", "weight": weight} for index, (child, weight) in enumerate(children)
    ]
    return {
        "weighted": {"services": services},
        "name": f"{name}-wrr@kubernetesgateway",
        "provider": "kubernetesgateway",
    }


def told(*services):
    internal = {"name": "api@internal", "provider": "internal", "type": "internal"}
    return shares(json.dumps([internal, *services]).encode(), "demo", "web")


def test_traefik_s_weights_are_those_of_the_route_and_of_no_other():
    other = gateway(("web", 1), name="httproute-demo-web-two-gw-demo-gate-ep-web-0-abc")
    own = {
        "weighted": {"services": [{"name": "demo-web-80", "weight": 60}, {"name": "demo-web-canary-80", "weight": 40}]},
        "name": "demo-web@kubernetescrd",
        "provider": "kubernetescrd",
    }
    found = told(other, gateway(("web", 75), ("web-canary", 25)), own)
    assert found == ({"demo-web-0": 75, "demo-web-canary-1": 25}, {"demo-web-80": 60, "demo-web-canary-80": 40})
    assert unlike(told(own), PAIR, 40) == ""
    with pytest.raises(ValueError, match="not a list of services"):
        shares(b"404 page not found", "demo", "web")


@pytest.mark.parametrize(
    ("services", "wanted", "has_header", "why"),
    [
        ([gateway(("web", 75), ("web-canary", 25))], 25, False, ""),
        ([gateway(("web", 75), ("web-canary", 25))], 50, False, "it gives svc/web-canary 25 %, not 50 %"),
        ([gateway(("web", 1))], 25, False, "it knows no way to svc/web-canary yet"),
        ([gateway(("web", 1))], 0, False, "it knows no way to svc/web-canary yet"),
        ([gateway(("web", 100), ("web-canary", 0))], 0, False, ""),
        ([gateway(("web", 1))], None, False, ""),
        ([gateway(("web", 100), ("web-canary", 0))], None, False, "it still knows a way to svc/web-canary"),
        ([], None, False, "it knows no way to svc/web yet"),
        ([gateway(("web-canary", 1))], 100, True, "it knows no way to svc/web yet"),
        ([gateway(("web", 100), ("web-canary", 0)), gateway(("web-canary", 1))], 0, True, ""),
        ([gateway(("web", 100), ("web-canary", 0))], 0, True, "it knows no way by a header to svc/web-canary"),
        ([gateway(("web", 9), ("web-canary", 1)), gateway(("web-canary", 1))], 10, False, "it knows a way by a header"),
        ([gateway(("web", 1)), gateway(("web-canary", 1))], None, False, "it still knows a way to svc/web-canary"),
        ([gateway(("web", 3), ("web-canary", 1)), gateway(("web-two", 1))], 25, False, ""),
    ],
)
def test_what_traefik_shows_is_held_against_what_was_written(services, wanted, has_header, why):
    assert unlike(told(*services), PAIR, wanted, has_header).startswith(why)
    assert bool(unlike(told(*services), PAIR, wanted, has_header)) == bool(why)


def test_the_command_line_names_the_object_whose_weights_are_meant():
    from tidegate.cli.release_spec import Unclear, wish_of

    options = (
        "filename images restart strategy ungated on_unverified progress service preview manual keep by together "
        "steps route cap activity"
    )
    given = {**dict.fromkeys(options.split(), ""), "strategy": "canary", "images": ("web=shop/web:2",)}

    def canary(route):
        return wish_of(("deployment", "web"), {**given, "steps": "10:5m,50:promote", "route": route})["canary"]

    steps = [{"weight": 10, "pauseSeconds": 300.0}, {"weight": 50, "pauseSeconds": None}]
    assert canary("") == {"steps": steps}
    assert canary("httproute/shop") == {"steps": steps, "router": "httproute", "route": "shop"}
    assert canary("traefikservice.traefik.io/shop") == {"steps": steps, "router": "traefik", "route": "shop"}
    for wrong in ("shop", "ingress/shop", "httproute/"):
        with pytest.raises(Unclear, match="is no object of weights: write httproute/NAME"):
            canary(wrong)
