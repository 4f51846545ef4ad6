"""The printed roles, carried through: agents, coordinator and people of a virtual lab held to them at each request."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from stage import NS, deployment, first, play

from tidegate import vtime
from tidegate.agent import coordinator, process, roles
from tidegate.agent.manifests import Installation, pieces
from tidegate.client import VerbOptions, cut_pod, drain_pod
from tidegate.client.isolate import isolate_pod
from tidegate.client.observe import Observation, Subject, observe
from tidegate.client.options import Identity
from tidegate.client.prepare.plan import PrepareOptions
from tidegate.client.prepare.run import prepare_service
from tidegate.client.prepare.scene import About
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import About as Workload
from tidegate.client.release.command import ReleaseOptions, begin_release, carry_on, plan_release
from tidegate.client.restore import restore_pod
from tidegate.client.status import status_of
from tidegate.client.verify import VerifyOptions, verify_pod
from tidegate.kube.api import PODS, Deletion
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver import access
from tidegate.lab.apiserver.access import Rule, attributes, refused
from tidegate.lab.apiserver.server import failed
from tidegate.model.names import OPERATOR, SYSTEM_NAMESPACE, Ending
from tidegate.release.spec import BlueGreen, Canary, CanaryStep, Rainbow, Spec

OPTIONS = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"))
UNGATED = deployment(gate=False)


def bound(chosen, space=NS):
    """(rule of the lab's access, names) of these roles, bound where they are meant to be."""
    found = []
    for one in (piece.manifest for piece in pieces(Installation("x"))):
        name = one["metadata"]["name"]
        if "rules" not in one or name not in chosen:
            continue
        ours = (roles.AGENT, roles.COORDINATOR, OPERATOR, roles.RELEASE)
        is_wide = one["kind"] == "ClusterRole" and name in (*roles.CLUSTER_WIDE, *ours)
        place = "" if is_wide else one["metadata"].get("namespace", space)
        for rule in one["rules"]:
            [group] = rule["apiGroups"]
            found.append(
                (Rule(tuple(rule["verbs"]), group, tuple(rule["resources"]), place), rule.get("resourceNames"))
            )
    return found


class HeldTo:
    """An exchange that lets pass what the roles allow; ``refused`` is what they did not, ``passed`` what they did."""

    def __init__(self, exchange, chosen):
        self.exchange, self.rules = exchange, bound(chosen)
        self.refused, self.passed = [], set()

    async def __call__(self, request):
        asked = attributes(request)
        is_review = asked.resource.startswith("selfsubject")
        if not is_review and not any(
            rule.allows(asked) and (names is None or asked.name in names) for rule, names in self.rules
        ):
            self.refused.append(f"{asked.verb} {asked.full_resource} {asked.namespace}/{asked.name}")
            return failed(refused(access.Subject("ann"), asked))
        self.passed.add((asked.verb, asked.full_resource))
        return await self.exchange(request)


@pytest.fixture
def cluster(monkeypatch):
    """Agents and coordinator are held to their roles: {role: every exchange of theirs}."""
    held = {roles.AGENT: [], roles.COORDINATOR: []}

    def opening(role):
        @contextlib.asynccontextmanager
        async def opened(server="", **how):
            async with open_api(server, **how) as api:
                held[role].append(HeldTo(api.exchange, (role,)))
                yield KubeClient(held[role][-1], server)

        return opened

    monkeypatch.setattr(process, "open_api", opening(roles.AGENT))
    monkeypatch.setattr(coordinator, "open_api", opening(roles.COORDINATOR))
    yield held
    for role, exchanges in held.items():
        assert exchanges, f"no {role} ran"
        assert not [one for each in exchanges for one in each.refused], role


def ann(stage, verb):
    """A client with the roles of a verb."""
    held = HeldTo(stage.lab.lab.exchange, roles.VERB_ROLES[verb])
    return KubeClient(held, "lab"), held


OPTIONAL = (f"create pods/eviction {NS}/", f"create services {NS}/")
"""A budget asked by a dry run; a cut pod kept scrapeable. docs/security.md says what goes without them."""


def beyond(*held):
    """What was refused that is needed."""
    return [one for each in held for one in each.refused if not one.startswith(OPTIONAL)]


def test_a_gate_is_verified_by_agents_that_may_do_no_more_than_their_role_says(cluster):
    async def story(stage):
        name = await first(stage)
        await stage.end(name)
        assert stage.result(name)["result"] == "verified"

    play(story, deployment())
    wrote = {deed for each in cluster[roles.COORDINATOR] for deed in each.passed}
    assert {("update", "endpointslices"), ("update", "leases"), ("create", "leases")} <= wrote
    assert ("patch", "pods") in {deed for each in cluster[roles.AGENT] for deed in each.passed}


def test_a_pod_is_cut_verified_and_drained_with_the_roles_of_each_verb(cluster):
    async def story(stage):
        name = await first(stage)
        looking, looked = ann(stage, "status")
        await status_of(looking, "svc", NS, "echo")
        cutting, cut = ann(stage, "cut")
        assert (await cut_pod(cutting, NS, name, OPTIONS)).result is Ending.VERIFIED
        with pytest.raises(ApiError):
            await cutting.delete(PODS, name, NS, Deletion())
        assert cut.refused.pop() == f"delete pods {NS}/{name}"
        assert (await verify_pod(looking, NS, name, VerifyOptions(seed=0))).outcome == "unrouted"
        draining, drained = ann(stage, "drain")
        assert (await drain_pod(draining, NS, name, OPTIONS)).result is Ending.VERIFIED
        assert not beyond(looked, cut, drained)

    play(story, UNGATED)


def test_a_pod_is_isolated_and_given_back_with_the_roles_of_each_verb(cluster):
    async def story(stage):
        name = await first(stage)
        isolating, isolated = ann(stage, "isolate")
        assert (await isolate_pod(isolating, (NS, name), True, OPTIONS)).result is Ending.VERIFIED
        await stage.ready(4)
        restoring, restored = ann(stage, "restore")
        assert (await restore_pod(restoring, (NS, name), OPTIONS)).result is Ending.VERIFIED
        assert not beyond(isolated, restored)

    play(story, UNGATED)


def test_a_service_is_prepared_in_place_with_the_roles_of_prepare(cluster):
    async def story(stage):
        preparing, prepared = ann(stage, "prepare")
        done = await prepare_service(preparing, About(NS, "echo", ("echo",)), PrepareOptions(in_place=True, seed=1))
        assert (done.result, prepared.refused) == ("prepared", [])

    play(story, UNGATED)


def test_a_rollout_is_observed_with_the_roles_that_look(cluster):
    async def story(stage):
        looking, looked = ann(stage, "status")
        subject = Subject(NS, "deploy", "echo")
        found = Observation(subject, vtime.now())
        name = await first(stage)

        async def later():
            await asyncio.sleep(2)
            await stage.end(name)

        ending = asyncio.create_task(later())
        seen = [one async for one in observe(looking, subject, 10.0, found)]
        await ending
        assert found.has_agents and len(seen) == 1 and looked.refused == []

    play(story, UNGATED)


def test_roles_are_of_their_namespace():
    held = HeldTo(None, roles.VERB_ROLES["drain"])
    assert {rule.namespace for rule, _ in held.rules} == {"", NS, SYSTEM_NAMESPACE}
    assert not [rule for rule, _ in held.rules if not rule.namespace and {"patch", "delete"} & set(rule.verbs)]


IMAGES = {"echo": "tidegate/echo:v2"}
RELEASES = {
    "rolling": Spec("echo", images=IMAGES),
    "bluegreen": Spec("echo", "bluegreen", images=IMAGES, bluegreen=BlueGreen(service="echo", keep_seconds=1.0)),
    "canary": Spec("echo", "canary", images=IMAGES, canary=Canary(service="echo", steps=(CanaryStep(50, 1.0),))),
    "rainbow": Spec(
        "echo", "rainbow", images=IMAGES, rainbow=Rainbow(service="echo", idle_seconds=2.0, retire_seconds=3.0)
    ),
}


@pytest.mark.parametrize("strategy", list(RELEASES))
def test_a_release_is_made_with_the_roles_of_its_strategy(strategy):
    async def story(stage):
        releasing, held = ann(stage, f"release {strategy}")
        book = ConfigMapBook(releasing, NS, "echo")
        plan = await plan_release(releasing, book, NS, RELEASES[strategy])
        assert plan.refusals == ()
        await begin_release(book, plan)
        options = ReleaseOptions(OPTIONS.identity, timeout_seconds=120, seed=1)
        entry = await carry_on(releasing, book, Workload(NS, "echo"), options)
        assert (entry.status.phase, beyond(held)) == ("done", [])

    play(story, UNGATED if strategy == "rolling" else deployment())
