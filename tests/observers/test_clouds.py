"""What control planes of clouds say of pods, judged: routed, let go in time, or unknown - never let go by an error."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import yaml
from fake_clouds import ARN, AWS, GCP, FakeAws, FakeGcp, credentials
from stage import NS, deployment, first, play

from tidegate import vtime
from tidegate.dataplane import awstargets, gcpneg
from tidegate.dataplane.awstargets import TargetGroup
from tidegate.kube import wire
from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Patch, Selection
from tidegate.kube.errors import KubeError, Unreachable
from tidegate.kube.exchange import Request
from tidegate.model.endpoint import Endpoint
from tidegate.observers import aws, config, gcp
from tidegate.observers.aws import BINDINGS, AwsTargetGroups
from tidegate.observers.external import Question, Replica, Spec, Where
from tidegate.observers.gcp import GcpGroups

POD, OTHER = Endpoint("10.0.0.1"), Endpoint("10.0.0.2")
QUESTION = Question((POD, OTHER), "main", None, 2.0, ("demo/web",))
NOTE = '{"network_endpoint_groups":{"80":"web-neg"},"zones":["z-1"]}'
TO_AWS, TO_GCP = Replica("web", ARN), Replica("web-neg@z-1", "web-neg@z-1")


@pytest.fixture(autouse=True)
def known(monkeypatch):
    credentials(monkeypatch)


def aws_observer(**options):
    return AwsTargetGroups(Spec("aws", Where(), options or {"targetGroups": {ARN: "demo/web"}}, "$"))


def gcp_observer(**options):
    return GcpGroups(Spec("gcp", Where(), {"project": "p-roject", **options}, "$"))


def told(fake, story):
    async def whole():
        vtime.hosted()[AWS if isinstance(fake, FakeAws) else GCP] = fake.exchange
        return await story()

    return vtime.run(whole(), limit_seconds=2000)


def asked(fake, before=lambda fake: None, replica=None):
    """The facts, once ``before`` has changed what is registered (10.0.0.1 and, of five, others)."""

    async def story():
        fake.register("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5")
        before(fake)
        await asyncio.sleep(11)
        observer = aws_observer() if isinstance(fake, FakeAws) else gcp_observer()
        return await observer.ask(replica or (TO_AWS if isinstance(fake, FakeAws) else TO_GCP), QUESTION)

    return told(fake, story)


@pytest.mark.parametrize("fake", [FakeAws("HTTP"), FakeAws("TCP"), FakeGcp()], ids=["alb", "nlb", "neg"])
def test_what_is_registered_is_routed_and_without_an_epoch(fake):
    facts = asked(fake)
    assert facts.routes_to(POD) and facts.routes_to(Endpoint("10.0.0.5")) and not facts.unreadable and not facts.fence


@pytest.mark.parametrize("fake", [FakeAws("HTTP"), FakeAws("TCP"), FakeGcp()], ids=["alb", "nlb", "neg"])
def test_what_was_deregistered_is_not_and_lingers_where_load_balancers_do(fake):
    facts = asked(fake, lambda fake: fake.deregister("10.0.0.1"))
    assert not facts.routes_to(POD) and facts.routes_to(OTHER) and not facts.unreadable
    lingers = {"HTTP": 0.0, "TCP": 180.0}.get(getattr(fake, "protocol", ""), 30.0)
    assert facts.linger_seconds == lingers


@pytest.mark.parametrize("state", ["initial", "unhealthy", "unavailable", "unhealthy.draining"])
def test_a_target_in_any_other_state_than_draining_or_unused_is_a_route(state):
    assert asked(FakeAws(), lambda fake: fake.states.update({"10.0.0.1": state})).routes_to(POD)


def test_unused_is_none_and_a_state_that_is_not_known_is_unreadable():
    assert not asked(FakeAws(), lambda fake: fake.states.update({"10.0.0.1": "unused"})).routes_to(POD)
    assert "'resting'" in str(asked(FakeAws(), lambda fake: fake.states.update({"10.0.0.1": "resting"})).unreadable[0])


@pytest.mark.parametrize(
    ("fake", "code"),
    [
        (FakeAws(), "Throttling"), (FakeAws(), "ExpiredToken"), (FakeAws(), "AccessDenied"),
        (FakeAws(), "ServiceUnavailable"), (FakeGcp(), "rateLimitExceeded"), (FakeGcp(), "forbidden"),
        (FakeGcp(), "backendError"),
    ],
)  # fmt: skip
def test_an_error_is_no_answer_and_says_its_code_and_no_secret(fake, code):
    with pytest.raises(Unreachable, match="503" if code in ("ServiceUnavailable", "backendError") else code) as caught:
        asked(fake, lambda fake: setattr(fake, "fails", code))
    assert "AKID" not in str(caught.value) and "ya29" not in str(caught.value)


def test_another_region_or_group_is_unknown_not_empty():
    elsewhere = ARN.replace("0123456789abcdef", "fedcba9876543210")
    with pytest.raises(Unreachable, match="TargetGroupNotFound"):
        asked(FakeAws(), replica=Replica("web", elsewhere))
    with pytest.raises(Unreachable, match="notFound"):
        asked(FakeGcp(), replica=Replica("x", "web-neg@z-2"))


def test_a_list_with_a_warning_is_a_part_of_it_and_unreadable():
    facts = asked(FakeGcp(), lambda fake: setattr(fake, "warning", "UNREACHABLE"))
    assert "UNREACHABLE" in str(facts.unreadable[0])
    assert not asked(FakeGcp(), lambda fake: setattr(fake, "warning", "NO_RESULTS_ON_PAGE")).unreadable


GROUP = TargetGroup(ARN, "HTTP", "ip")
HEAD = "<DescribeTargetHealthResponse><DescribeTargetHealthResult><TargetHealthDescriptions>"
TAIL = "</TargetHealthDescriptions></DescribeTargetHealthResult></DescribeTargetHealthResponse>"


def member(address, port, state):
    target = f"<Target><Id>{address}</Id><Port>{port}</Port></Target>"
    return f"<member>{target}<TargetHealth><State>{state}</State></TargetHealth></member>"


@pytest.mark.parametrize(
    "body",
    [
        "", "no", "<a/>", HEAD, f"<!DOCTYPE x>{HEAD}{TAIL}", "<DescribeTargetHealthResponse/>",
        f"{HEAD}<member/>{TAIL}", f"{HEAD}<other/>{TAIL}",
        HEAD + member("i-1", 80, "healthy") + TAIL,
        HEAD + member("10.0.0.9", "x", "draining") + TAIL,
        HEAD + TAIL.replace("</DescribeTargetHealthResult>", "<NextMarker>m</NextMarker></DescribeTargetHealthResult>"),
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_of_aws_is_unreadable(body):
    assert awstargets.parse_health(body, GROUP).unreadable


def test_an_empty_group_is_one_and_targets_of_another_type_are_not_ours_to_read():
    assert not awstargets.parse_health(HEAD + TAIL, GROUP).unreadable
    assert "instance" in str(awstargets.parse_health(HEAD + TAIL, TargetGroup(ARN, "TCP", "instance")).unreadable[0])


def test_a_group_of_both_transports_routes_both():
    body = HEAD + member("10.0.0.1", 53, "healthy") + TAIL
    facts = awstargets.parse_health(body, TargetGroup(ARN, "TCP_UDP", "ip"))
    assert facts.routes_to(Endpoint("10.0.0.1", 53, "UDP")) and facts.routes_to(Endpoint("10.0.0.1", 53, "TCP"))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"kind": "compute#other"}', b'{"items": []}'])
def test_what_is_no_list_of_google_cloud_is_unreadable(body):
    with pytest.raises(ValueError, match="no list"):
        gcpneg.parse_page(body)


def test_an_endpoint_without_an_address_is_unreadable():
    kind = b'"kind": "compute#networkEndpointGroupsListNetworkEndpoints"'
    page = gcpneg.parse_page(b"{" + kind + b', "items": [{"networkEndpoint": {"instance": "n"}}]}')
    assert gcpneg.facts_of([page], "g").unreadable


def binding(name="web", arn=ARN, service="web", **spec):
    return {
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {"targetGroupARN": arn, "serviceRef": {"name": service}, **spec},
    }


def service(name="web", **notes):
    return {"metadata": {"name": name, "namespace": "demo", "annotations": notes}, "spec": {}}


def test_target_groups_are_those_of_the_bindings_that_have_pods_for_targets():
    observer = AwsTargetGroups(Spec("aws", Where(), {}, "$"))
    with pytest.raises(ValueError, match="not listed"):
        observer.replicas(())
    observer.see(
        {
            BINDINGS: [
                binding(),
                binding("api", service="api", targetType="ip"),
                binding("n", targetType="instance", arn="x"),
            ]
        }
    )
    assert observer.replicas(()) == (TO_AWS,)
    assert observer.concerns(TO_AWS, {"demo/api": None}) and not observer.concerns(TO_AWS, {"demo/other": None})
    observer.see({BINDINGS: None})
    with pytest.raises(ValueError, match="not listed"):
        observer.replicas(())


def test_a_binding_without_an_arn_is_asked_about_and_unreadable():
    observer = AwsTargetGroups(Spec("aws", Where(), {}, "$"))
    observer.see({BINDINGS: [binding(arn="")]})
    [replica] = observer.replicas(())
    assert vtime.run(observer.ask(replica, QUESTION)).unreadable


def test_endpoint_groups_are_those_that_the_controller_wrote_on_services():
    observer = gcp_observer()
    status, wanted = "cloud.google.com/neg-status", "cloud.google.com/neg"
    observer.see({"services": [
        service(**{status: NOTE}), service("plain"),
        service("none", **{status: '{"network_endpoint_groups":{},"zones":[]}'}),
        service("late", **{wanted: '{"ingress": true}'}), service("broken", **{status: "{"}),
        service("nowhere", **{status: '{"network_endpoint_groups":{"80":"x"},"zones":[]}'}),
    ]})  # fmt: skip
    assert [one.address for one in observer.replicas(())] == [
        "service demo/broken", "service demo/late", "service demo/nowhere", "web-neg@z-1",
    ]  # fmt: skip
    assert observer.concerns(TO_GCP, {"demo/web": None}) and not observer.concerns(TO_GCP, {"demo/plain": None})
    for replica in observer.replicas(())[:3]:
        assert vtime.run(observer.ask(replica, QUESTION)).unreadable


def parsed(text):
    return config.parse(f"observers: [{{name: a, {text}}}]")


@pytest.mark.parametrize(
    "text",
    [
        "kind: gcp-neg",
        "kind: gcp-neg, options: {project: 'P'}",
        "kind: aws-target-group, options: {targetGroups: {x: demo/web}}",
        "kind: aws-target-group, where: {addresses: ['1.1.1.1:1']}",
        f"kind: aws-target-group, options: {{targetGroups: {{'{ARN}': web}}}}",
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_boots(text):
    with pytest.raises(config.ConfigError, match=r"observers\[0\]"):
        parsed(text)


async def test_credentials_that_are_not_there_are_no_answer(monkeypatch):
    monkeypatch.undo()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(Unreachable, match="AWS credentials"):
        await aws.credentials()
    with pytest.raises(Unreachable, match="Google Cloud credentials"):
        await gcp.token()


# --- in a lab: a controller that registers pods, a load balancer that sends to them ---


class Balancer:
    """The cloud's controller and load balancer at once: it follows the slices, and dials what the cloud sends to."""

    def __init__(self, stage, fake, keeps):
        self.stage, self.fake, self.keeps, self.lost, self.sent = stage, fake, keeps, [], 0

    async def control(self):
        while True:
            select = Selection(NS, labels="kubernetes.io/service-name=echo")
            wanted = [
                endpoint["addresses"][0]
                for slice_ in (await self.stage.api.list(ENDPOINTSLICES, select)).items
                for endpoint in slice_.get("endpoints") or ()
                if self.keeps(endpoint["conditions"])
            ]
            self.fake.register(*wanted)
            self.fake.deregister(*[address for address, _ in self.fake.targets if address not in wanted])
            await asyncio.sleep(1.0)

    async def send(self):
        while True:
            for address, port in self.fake.sends_to():
                self.sent += 1
                try:
                    await wire.fetch(wire.Peer(address, port, "127.16.0.12", 5.0), Request("GET", "/"))
                except KubeError as error:
                    self.lost.append((self.stage.now, address, str(error)))
            await asyncio.sleep(0.25)


def drained(tmp_path, fake, *observers, grace=400):
    """(result, seconds until SIGTERM, requests lost until 150 s after) of one pod behind a cloud's load balancer."""
    options = {}
    if observers:
        file = tmp_path / "observers.yaml"
        file.write_text(yaml.safe_dump({"observers": list(observers)}))
        options["addon_options"] = (("observers", str(file)),)
    is_aws = isinstance(fake, FakeAws)

    async def story(stage):
        vtime.hosted()[AWS if is_aws else GCP] = fake.exchange
        note = {"metadata": {"annotations": {"cloud.google.com/neg-status": NOTE}}}
        if not is_aws:
            await stage.api.patch(SERVICES, "echo", Patch(note), NS)
        balancer = Balancer(stage, fake, lambda at: at["ready"] if is_aws else not at["terminating"])
        running = [asyncio.ensure_future(one) for one in (balancer.control(), balancer.send())]
        await asyncio.sleep(15.0)
        name, began = await first(stage), vtime.now().timestamp()
        await stage.delete(name)
        await stage.gone(name, within=float(grace))
        result, seconds = stage.result(name), stage.told_to_stop(name) - began
        await asyncio.sleep(150.0)
        for one in running:
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await one
        assert balancer.sent > 1000
        return result, seconds, balancer.lost

    return play(story, deployment(grace=grace), limit=1500, **options)


AWS_OBSERVER = {
    "name": "aws",
    "kind": "aws-target-group",
    "settleSeconds": 5.0,
    "options": {"targetGroups": {ARN: f"{NS}/echo"}},
}
GCP_OBSERVER = {"name": "gcp", "kind": "gcp-neg", "options": {"project": "p-roject"}}


@pytest.mark.parametrize(
    ("fake", "observer", "least"),
    [(FakeAws("HTTP"), AWS_OBSERVER, 5.0), (FakeAws("TCP"), AWS_OBSERVER, 180.0), (FakeGcp(), GCP_OBSERVER, 30.0)],
    ids=["alb", "nlb", "neg"],
)
def test_a_clouds_load_balancer_is_waited_for_and_its_word_is_assumed(tmp_path, fake, observer, least):
    result, seconds, lost = drained(tmp_path, fake, observer)
    assert (result["result"], lost) == ("assumed", [])
    assert least <= seconds < least + 20.0 and f"no route for {least:g} s" in result["reason"]


@pytest.mark.parametrize("fake", [FakeAws("TCP"), FakeGcp()], ids=["nlb", "neg"])
def test_one_that_nobody_asks_loses_requests(tmp_path, fake):
    _, _, lost = drained(tmp_path, fake)
    assert lost


def test_a_load_balancer_of_a_service_that_the_observer_does_not_ask_about_is_suspected_not_covered(tmp_path):
    """It answers for other Services' target groups: covering AWS as a whole made this drain `verified`."""
    other = {**AWS_OBSERVER, "options": {"targetGroups": {ARN: f"{NS}/other"}}}
    file = tmp_path / "observers.yaml"
    file.write_text(yaml.safe_dump({"observers": [other]}))

    async def story(stage):
        vtime.hosted()[AWS] = FakeAws("TCP").exchange
        note = {"metadata": {"annotations": {"service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip"}}}
        await stage.api.patch(SERVICES, "echo", Patch({**note, "spec": {"type": "LoadBalancer"}}), NS)
        await asyncio.sleep(5.0)
        name = await first(stage)
        await stage.delete(name)
        await stage.gone(name, within=60.0)
        return stage.result(name)

    result = play(story, deployment(grace=60), limit=300, addon_options=(("observers", str(file)),))
    assert result["result"] == "assumed" and "an AWS load balancer has the pods of" in result["reason"]


def test_one_that_throttles_to_the_end_is_named(tmp_path):
    fake = FakeAws("HTTP")
    fake.fails = "Throttling"
    result, _, _ = drained(tmp_path, fake, AWS_OBSERVER, grace=60)
    assert result["result"] == "timed-out" and result["stragglers"] == ["aws/web"] and "Throttling" in result["reason"]


@pytest.mark.realtime
async def test_over_real_sockets_by_the_client_that_a_cluster_has():
    fake = FakeAws("HTTP")
    fake.register("10.0.0.1")
    async with wire.serving(fake.exchange, "127.0.0.1") as server:
        observer = aws_observer(targetGroups={ARN: "demo/web"}, endpoint=f"http://127.0.0.1:{server.port}")
        assert (await observer.ask(TO_AWS, QUESTION)).routes_to(POD)
    fake = FakeGcp()
    fake.register("10.0.0.2")
    async with wire.serving(fake.exchange, "127.0.0.1") as server:
        observer = gcp_observer(endpoint=f"http://127.0.0.1:{server.port}")
        assert (await observer.ask(TO_GCP, QUESTION)).routes_to(OTHER)
