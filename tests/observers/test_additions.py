"""Whether an observer sends to pods that were added: what each kind's word rests on. Unknown is never yes, and who
lacks a pod is waited for by name."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace

import pytest
from fake_clouds import ARN, AWS, FakeAws, credentials
from test_cilium import facts as of_cilium
from test_cilium import service as cilium_service
from test_envoy_dumps import FIRST as IN_ENVOY
from test_envoy_dumps import edited as envoy_edited
from test_envoy_dumps import read as read_envoy
from test_kinds import asked, says, spec
from test_proxy_dumps import edited as traefik_edited
from test_proxy_dumps import state as haproxy_state

from tidegate import vtime
from tidegate.agent.externals import Externals
from tidegate.dataplane import gcpneg, haproxy, traefik
from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.drain.acknowledgement import Verdict
from tidegate.drain.fence import FenceWrite
from tidegate.drain.state import Mode
from tidegate.engine.flights import Flight
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers import config
from tidegate.observers.addition import Addition, Joining, look
from tidegate.observers.arrival import Arrival, Sought
from tidegate.observers.aws import AwsTargetGroups
from tidegate.observers.command_check import CommandCheck
from tidegate.observers.coordinator import Ask, addition_of, ask_of, decode_ask, fields_of
from tidegate.observers.dns import DnsServers
from tidegate.observers.external import Fencing, Question, Replica, Spec, Where
from tidegate.observers.gcp import GcpGroups
from tidegate.observers.http_check import HttpCheck
from tidegate.observers.standing import Terms
from tidegate.observers.tcp_check import TcpCheck

NEW, NEXT, OLD = Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080), Endpoint("10.0.0.9")
ADMIN = Endpoint("10.0.0.1", 9090)
PODS = (Joining("pod/a", (NEW, ADMIN), "z-1"), Joining("pod/b", (NEXT,), "z-2"))
ADDITION = Addition("demo/web", PODS, (OLD,))
CONFIRMED, PENDING, ASSUMED = Verdict.CONFIRMED, Verdict.PENDING, Verdict.ASSUMED


def epoch(number):
    return Epoch("main", number)


def dump(*endpoints, withheld="", fence=None, **fields):
    routes = (Route("proxy", "", 0, "TCP", endpoints, withheld=withheld),) if endpoints else ()
    return Facts("r", "d", routes=routes, fence=() if fence is None else (epoch(fence),), **fields)


class TestOneDump:
    def test_who_lists_every_pod_lacks_none(self):
        assert look(dump(NEW, NEXT), ADDITION).lack == ""

    def test_a_pod_that_is_not_there_is_named(self):
        assert look(dump(NEW), ADDITION).lack == "does not list pod/b at 10.0.0.2:8080"

    def test_who_lists_only_old_ones_lacks_all(self):
        found = look(dump(Endpoint("10.0.0.9", 8080)), ADDITION)
        assert found.is_concerned and len(found.missing) == 2

    def test_one_that_is_listed_and_gets_nothing_is_not_there_yet(self):
        assert look(dump(NEW, NEXT, withheld="initial"), ADDITION).lack.startswith("lists pod/a at 10.0.0.1:8080, init")

    def test_only_the_ports_that_it_has_of_the_service_count(self):
        assert look(dump(NEW, NEXT, Endpoint("10.0.0.9", 8080)), ADDITION).lack == ""
        of_another_port = dump(NEW, NEXT, Endpoint("10.0.0.9", 9090))
        assert look(of_another_port, ADDITION).lack == "does not list pod/a at 10.0.0.1:9090"

    def test_an_address_without_a_port_is_one_at_every_port(self):
        assert look(dump(Endpoint("10.0.0.1"), Endpoint("10.0.0.2")), ADDITION).lack == ""

    def test_who_lists_no_pod_of_the_service_has_nothing_to_lack_unless_it_is_expected_to(self):
        elsewhere = dump(Endpoint("10.7.7.7", 8080))
        assert look(elsewhere, ADDITION) == look(dump(), ADDITION) and not look(elsewhere, ADDITION).is_concerned
        assert look(dump(), ADDITION, is_expected=True).lack == "does not list pod/a; does not list pod/b"

    def test_of_many_the_first_few_are_named(self):
        pods = tuple(Joining(f"pod/{n}", (Endpoint(f"10.0.1.{n}", 80),)) for n in range(9))
        assert look(dump(), Addition("demo/web", pods), is_expected=True).lack.endswith("and 6 more")


class Row:
    """Readings put to one standing, a second apart."""

    def __init__(self, is_expected=False, number=5, **terms):
        self.arrival, self.at, self.latest = Arrival(Terms(**terms), epoch(number)), 0.0, epoch(number)
        self.sought = Sought(ADDITION, is_expected)

    def take(self, facts):
        self.at += 1.0
        return self.arrival.take(facts, self.sought, self.at, self.latest)

    def verdicts(self, *dumps):
        return [self.take(one)[0] for one in dumps]


ALL, SOME = dump(NEW, NEXT), dump(NEW)


class TestARowOfReadings:
    def test_without_a_fence_all_have_to_be_listed_for_the_settle_time_in_a_row(self):
        row = Row(settle_seconds=2.0)
        assert row.verdicts(ALL, SOME, ALL, ALL, ALL) == [PENDING, PENDING, PENDING, PENDING, CONFIRMED]

    def test_a_replica_that_did_not_answer_starts_it_anew(self):
        row = Row(settle_seconds=1.0)
        assert row.verdicts(ALL) == [PENDING] and row.arrival.fail("refused")[0] is Verdict.UNREACHABLE
        assert row.verdicts(ALL, ALL) == [PENDING, CONFIRMED]

    def test_who_lists_none_of_the_service_is_assumed_by_name_and_never_confirmed(self):
        row = Row(settle_seconds=1.0)
        assert row.verdicts(dump(), dump(), dump()) == [PENDING, ASSUMED, ASSUMED]
        assert "lists no pod of demo/web" in row.take(dump())[1]

    def test_one_of_which_objects_say_that_it_should_is_waited_for(self):
        row = Row(is_expected=True, settle_seconds=0.0)
        assert row.verdicts(*[dump()] * 9) == [PENDING] * 9 and "does not list pod/a" in row.take(dump())[1]

    def test_a_list_that_runs_ahead_of_what_is_used_is_assumed(self):
        row = Row(settle_seconds=0.0, listing_lags="its maps follow")
        assert row.verdicts(ALL, ALL) == [PENDING, ASSUMED] and "its maps follow" in row.take(ALL)[1]

    def test_a_fence_proves_the_additions_and_what_is_absent_is_not_routed_by_it(self):
        row = Row(fencing=Fencing.SINGLE)
        assert row.verdicts(dump(fence=4), dump(fence=5), dump(OLD, fence=5)) == [PENDING, CONFIRMED, CONFIRMED]

    def test_but_not_that_a_health_check_has_passed(self):
        row = Row(fencing=Fencing.SINGLE)
        assert row.verdicts(dump(NEW, NEXT, fence=5, withheld="DOWN")) == [PENDING]
        assert "DOWN" in row.take(dump(NEW, NEXT, fence=5, withheld="DOWN"))[1]

    def test_nor_that_a_cache_before_it_has_the_name_of_a_headless_service(self):
        row = Row(is_expected=True, fencing=Fencing.SINGLE)
        assert row.verdicts(dump(OLD, fence=5), dump(NEW, NEXT, fence=5)) == [PENDING, CONFIRMED]

    def test_a_torn_pass_needs_a_second_epoch(self):
        row = Row(fencing=Fencing.DOUBLE)
        assert row.verdicts(dump(NEW, NEXT, fence=5)) == [PENDING] and row.arrival.wants_epoch(epoch(5))
        row.latest = epoch(6)
        assert row.verdicts(*[dump(NEW, NEXT, fence=6)] * 2) == [PENDING, CONFIRMED]

    def test_no_time_to_live_is_waited_for_since_old_pods_wait_for_it_themselves(self):
        assert Row(fencing=Fencing.SINGLE).verdicts(dump(NEW, NEXT, fence=5, linger_seconds=30.0)) == [CONFIRMED]

    def test_what_is_not_understood_is_no_yes(self):
        row = Row(settle_seconds=0.0)
        unreadable = dump(NEW, NEXT, unreadable=(Unreadable("garbage"),))
        assert row.verdicts(ALL, unreadable, ALL) == [PENDING, Verdict.UNREADABLE, PENDING]

    def test_an_advisory_one_is_assumed_with_what_it_said(self):
        verdict, why = Row(is_required=False).take(dump(OLD))
        assert verdict is ASSUMED and why.startswith("advisory, not waited for: pending: does not list pod/a")


# --- what each kind's answer says ---


def withheld(facts, endpoint):
    return [route.withheld for route in facts.routes_to(endpoint)]


def test_aws_is_there_once_it_is_healthy(monkeypatch):
    credentials(monkeypatch)
    observer = AwsTargetGroups(Spec("aws", Where(), {"targetGroups": {ARN: "demo/web"}}, "$"))
    replica, fake = Replica("web", ARN), FakeAws("HTTP")

    async def story():
        vtime.hosted()[AWS] = fake.exchange
        seen = []
        for registers in (False, True, False):
            if registers:
                fake.register("10.0.0.1", "10.0.0.2")
            facts = await observer.ask(replica, Question((NEW,), "main", None, 2.0))
            seen.append(look(facts, ADDITION, is_expected=True).lack.partition(";")[0])
            await asyncio.sleep(11)
        return seen

    assert vtime.run(story()) == ["does not list pod/a", "lists pod/a at 10.0.0.1:8080, initial", ""]
    assert observer.expected(replica, "demo/web", {}, PODS) == PODS
    assert observer.expected(replica, "demo/other", {}, PODS) is None


@pytest.mark.parametrize("state", ["initial", "unhealthy", "unavailable", "unhealthy.draining"])
def test_no_other_state_of_aws_is_one_that_is_sent_to(state, monkeypatch):
    from test_clouds import GROUP, HEAD, TAIL, awstargets, member

    body = HEAD + member("10.0.0.1", 8080, state) + member("10.0.0.2", 8080, "healthy") + TAIL
    facts = awstargets.parse_health(body, GROUP)
    assert (withheld(facts, NEW), withheld(facts, NEXT)) == ([state], [""])


def neg(*items):
    found = [
        {"networkEndpoint": {"ipAddress": ip, "port": 8080}, "healths": [{"healthState": one} for one in states]}
        for ip, *states in items
    ]
    kind = "compute#networkEndpointGroupsListNetworkEndpoints"
    return gcpneg.facts_of([gcpneg.parse_page(json.dumps({"kind": kind, "items": found}).encode())], "g")


def test_google_cloud_lists_and_every_load_balancer_that_tells_finds_it_healthy():
    both = neg(("10.0.0.1", "HEALTHY"), ("10.0.0.2", "HEALTHY", "UNHEALTHY"))
    assert (withheld(both, NEW), withheld(both, NEXT)) == ([""], ["UNHEALTHY"])
    fresh = neg(("10.0.0.1",), ("10.0.0.2", "HEALTHY"))
    assert withheld(fresh, NEW) == ["no health told yet"]
    assert withheld(neg(("10.0.0.1", "UNKNOWN")), NEW) == ["UNKNOWN"]
    assert withheld(neg(("10.0.0.1",), ("10.0.0.2",)), NEW) == [""], "nobody checks this group's health"


def test_a_group_of_google_cloud_has_the_pods_of_its_zone():
    observer = GcpGroups(Spec("gcp", Where(), {"project": "p-roject"}, "$"))
    note = '{"network_endpoint_groups":{"80":"web-neg"},"zones":["z-1","z-2"]}'
    metadata = {"name": "web", "namespace": "demo", "annotations": {"cloud.google.com/neg-status": note}}
    observer.see({"services": [{"metadata": metadata, "spec": {}}]})
    first, second = observer.replicas(())
    assert observer.expected(first, "demo/web", {}, PODS) == PODS[:1]
    assert observer.expected(second, "demo/web", {}, PODS) == PODS[1:]
    unzoned = (replace(PODS[0], zone=""),)
    assert observer.expected(first, "demo/web", {}, unzoned) == observer.expected(second, "demo/web", {}, unzoned)
    elsewhere = (replace(PODS[0], zone="z-3"),)
    assert observer.expected(first, "demo/web", {}, elsewhere) == elsewhere, "a zone whose group is not known yet"
    assert observer.expected(first, "demo/other", {}, PODS) is None
    nothing = Sought(Addition("demo/web", ()), True)
    assert Arrival(Terms(), epoch(5)).take(dump(), nothing, 1.0, None)[0] is CONFIRMED


def test_traefik_sends_to_servers_that_are_up():
    url = "http://127.77.1.1:8080"

    def down(services, found):
        services["demo-echo-http@file"]["serverStatus"][url] = "DOWN"

    facts = traefik.parse(traefik_edited(down), ignore_names=True)
    assert withheld(facts, Endpoint("127.77.1.1", 8080)) == ["DOWN"]
    assert withheld(facts, Endpoint("127.77.1.2", 8080)) == [""]


def test_haproxy_sends_to_servers_that_run_with_a_weight_and_do_not_drain():
    first, second = Endpoint("127.77.1.1", 8080), Endpoint("127.77.1.2", 8080)
    text = haproxy_state("drain")
    assert (withheld(haproxy.parse(text), first), withheld(haproxy.parse(text), second)) == ([""], ["drain"])
    line = "127.77.1.1 2 0 1 1"
    assert line in text
    for told, why in (("0 0 1 1", "stopped"), ("1 0 1 1", "starting"), ("2 0 0 1", "weight 0"), ("9 0 1 1", "state 9")):
        assert withheld(haproxy.parse(text.replace(line, f"127.77.1.1 {told}")), first) == [why]


@pytest.mark.parametrize(
    ("health", "why"),
    [
        ({"eds_health_status": "HEALTHY"}, ""), ({}, ""), ({"eds_health_status": "DRAINING"}, "DRAINING"),
        ({"eds_health_status": "DEGRADED"}, "DEGRADED"),
        ({"failed_active_health_check": True}, "failed_active_health_check"),
        ({"pending_active_hc": True}, "pending_active_hc"), ({"failed_outlier_check": True}, "failed_outlier_check"),
        ({"pending_dynamic_removal": True}, "taken away by EDS"),
    ],
)  # fmt: skip
def test_envoy_sends_to_hosts_that_are_healthy(health, why):
    def change(clusters, status, found):
        status["demo/checked:http"]["host_statuses"] = []
        for host in status["demo/echo:http"]["host_statuses"]:
            host["health_status"] = health

    found = withheld(read_envoy(envoy_edited(change)), IN_ENVOY)
    assert found == [why]


def test_cilium_sends_to_active_backends():
    backends = ("10.0.0.1", 8080, "active"), ("10.0.0.2", 8080, "quarantined")
    facts = of_cilium(cilium_service(*backends))
    assert (withheld(facts, NEW), withheld(facts, NEXT)) == ([""], ["quarantined"])


def test_dns_is_to_have_all_of_a_headless_service_and_no_other():
    observer = DnsServers(Spec("dns", Where("kube-system/kube-dns", 53), {}, "$"))
    replica = Replica("r", "10.0.0.3:53")
    headless, plain = {"spec": {"clusterIP": "None"}}, {"spec": {"clusterIP": "10.96.0.9"}}
    assert observer.expected(replica, "demo/web", {"demo/web": headless}, PODS) == PODS
    assert observer.expected(replica, "demo/web", {"demo/web": plain}, PODS) is None
    assert observer.expected(replica, "demo/web", {"demo/web": None}, PODS) is None


ROUTED = Question((NEW, NEXT), "main", epoch(7), 2.0, ("demo/web",), "routed")


class TestThoseThatAreAskedApart:
    async def test_http_is_told_the_question_and_its_yes_is_one(self):
        seen = []

        def answer(request):
            seen.append(request.param("q"))
            return says(routed=request.param("ip") == "10.0.0.1")(request)

        options = {"path": "/?q={question}&ip={address}", "additionsOf": ["demo/web"]}
        facts = await asked(HttpCheck, answer, ROUTED, **options)
        assert set(seen) == {"routed"} and facts.routes_to(NEW) and not facts.routes_to(NEXT)

    async def test_what_has_not_let_go_may_not_send_yet_so_http_says_which_answer_means_that(self):
        gone, healthy = {"path": "state", "equals": "absent"}, {"path": "state", "equals": "healthy"}
        options = {"path": "/", "letGoWhen": gone, "additionsOf": ["demo/web"]}
        with pytest.raises(ValueError, match="sendsWhen"):
            HttpCheck(spec(**options))
        for state, is_there in (("healthy", True), ("initial", False)):
            facts = await asked(HttpCheck, says(state=state), ROUTED, **options, sendsWhen=healthy)
            assert bool(facts.routes_to(NEW)) is is_there

    async def test_a_command_says_to_whom_not_yet(self):
        async def ask(code):
            observer = CommandCheck(spec(command=[sys.executable, "-c", code], additionsOf=["demo/web"]))
            return await observer.ask(Replica("r", ""), ROUTED)

        assert (await ask("import os; assert os.environ['TIDEGATE_QUESTION'] == 'routed'")).routes_to(NEXT)
        facts = await ask("print('10.0.0.2:8080/TCP'); raise SystemExit(1)")
        assert facts.routes_to(NEW) and not facts.routes_to(NEXT)
        assert not (await ask("raise SystemExit(1)")).routes
        assert (await ask("raise SystemExit(2)")).unreadable

    async def test_over_tcp_whoever_was_met_is_sent_to_though_chance_passes_it_over(self):
        answers = ["10.0.0.1", "10.0.0.2"]

        async def serve(reader, writer):
            writer.write(answers[0].encode())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1")
        try:
            replica = Replica("r", f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            observer = TcpCheck(spec(samples=2, additionsOf=["demo/web"]))
            assert not (await observer.ask(replica, ROUTED)).routes_to(NEXT)
            answers.pop(0)
            facts = await observer.ask(replica, ROUTED)
            assert facts.routes_to(NEW) and facts.routes_to(NEXT)
        finally:
            server.close()

    def test_only_about_services_that_the_option_names(self):
        observer = CommandCheck(spec(command=["x"], additionsOf=["demo/web"]))
        assert observer.expected(Replica("r", ""), "demo/web", {}, PODS) == PODS
        assert observer.expected(Replica("r", ""), "demo/other", {}, PODS) is None
        with pytest.raises(config.ConfigError, match="additionsOf"):
            config.parse("observers: [{name: a, kind: command, options: {command: [x], additionsOf: [web]}}]")


# --- asked by the coordinator ---


class Listing:
    """An observer that lists ``listed``; with ``additions`` ``asked`` it answers only what it is asked about."""

    fencing, covers = Fencing.SINGLE, ()

    def __init__(self, additions, services=("demo/web",)):
        self.additions, self.services, self.listed, self.questions = additions, services, (), []
        self.wanted = services

    def replicas(self, slices):
        return (Replica("r", "10.9.0.1:80"),)

    def concerns(self, replica, services):
        return any(name in self.services for name in services)

    def expected(self, replica, service, services, pods):
        return pods if service in self.wanted else None

    async def ask(self, replica, question):
        self.questions.append((question.kind, question.endpoints))
        return dump(*(self.listed if self.additions == "listed" or question.kind == "routed" else ()))


def in_flight(addition=ADDITION):
    made = Flight("u", "demo", "p", (Endpoint("192.0.2.1", 9),), Mode.LABEL, "r", 0.0, 0.0)
    made.services, made.addition, made.write = ("tidegate-system/fence",), addition, FenceWrite(epoch(5), 0.0)
    return made


@pytest.mark.parametrize("additions", ["listed", "asked"])
def test_the_coordinator_asks_for_added_pods_and_names_who_lacks_one(additions):
    async def story():
        observer = Listing(additions)
        configured = config.Configured("lb", "ours", observer, Terms(Fencing.SINGLE, settle_seconds=1.0), 2.0)
        about = in_flight()
        externals = Externals((configured,), "main", lambda name: name and externals.take(about, name))
        externals.enumerate()
        externals.set_endpoints(about.endpoints, ("tidegate-system/fence", "demo/web"), ADDITION.endpoints)
        told = []
        for listed in ((), (NEW,), (NEW, NEXT)):
            observer.listed = listed
            await asyncio.sleep(3)
            told += [(one.verdict, one.detail) for one in externals.views(about)]
        kinds = {kind for kind, _ in observer.questions}
        assert kinds == ({"unrouted", "routed"} if additions == "asked" else {"unrouted"})
        externals.set_endpoints(())
        return told

    first, second, third = vtime.run(story(), limit_seconds=60)
    assert first == ("pending", "does not list pod/a; does not list pod/b")
    assert second == ("pending", "does not list pod/b at 10.0.0.2:8080")
    assert third[0] == "confirmed" and "sends to all 2 pods" in third[1]


def test_one_that_is_to_have_them_only_later_is_asked_for_them_from_then_on():
    async def story():
        observer = Listing("asked")
        observer.wanted = ()
        configured = config.Configured("lb", "ours", observer, Terms(Fencing.SINGLE, settle_seconds=1.0), 2.0)
        about = in_flight()
        externals = Externals((configured,), "main", lambda name: name and externals.take(about, name))
        externals.enumerate()
        externals.set_endpoints(about.endpoints, ("tidegate-system/fence", "demo/web"), ADDITION.endpoints)
        await asyncio.sleep(0.7)
        observer.wanted = ("demo/web",)
        await asyncio.sleep(3)
        [view] = externals.views(about)
        observer.wanted = ()
        await asyncio.sleep(3)
        [after] = externals.views(about)
        externals.set_endpoints(())
        return view, after

    view, after = vtime.run(story(), limit_seconds=60)
    assert (view.verdict, view.detail) == ("pending", "does not list pod/a; does not list pod/b")
    assert after.verdict == "assumed"


def test_one_of_another_service_is_not_asked():
    async def story():
        configured = config.Configured("lb", "ours", Listing("listed", ("demo/other",)), Terms(), 2.0)
        externals = Externals((configured,), "main", lambda name: None)
        externals.enumerate()
        return externals.names_for(in_flight()), externals.views(in_flight())

    assert vtime.run(story()) == ((), ())


def test_an_addition_survives_the_wire_and_a_question_without_one_is_as_it_was():
    import msgspec

    plain = ask_of(("u", "demo", "p"), (NEW,), Mode.LABEL)
    assert b"addition" not in msgspec.json.encode(plain), "a coordinator of before refuses what it does not know"
    ask = msgspec.structs.replace(plain, addition=fields_of(ADDITION))
    assert addition_of(decode_ask(msgspec.json.encode(ask))) == ADDITION
    assert addition_of(msgspec.json.decode(msgspec.json.encode(plain), type=Ask)) is None
