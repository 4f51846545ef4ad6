"""What fails, what is done about it, what is said: docs/failures.md, a story for each row of its table.

Each story plays by gate and by labels wherever both apply. Its words are read from the page, so a sentence that changes
here or there fails. Beside the results judge: no lie of the kernels' journal (``play``), nobody but the excepted node
routing to a pod that is told to stop, and what the ledger keeps of the witness.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from scene import NODES as ADDRESSES
from scene import Weather, failing, play, weather
from stage import NS, deployment, lies, node_of

from tidegate import vtime
from tidegate.agent import canvass, drains, excuses
from tidegate.client import VerbOptions, drain_pod
from tidegate.client.ledger import entries_of
from tidegate.client.status import status_of
from tidegate.client.vouch import Vouching, carry_out_vouch, plan_vouch
from tidegate.drain.excuse import OUT_OF_SERVICE, SETTLE_SECONDS
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import NODES, PODS, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import Unreachable
from tidegate.lab.kernel.tables import decode_entries
from tidegate.model.names import SYSTEM_NAMESPACE, VouchRecord, encode_vouch
from tidegate.rehearse.addons import TIDEGATE

PAGE = (Path(__file__).parents[2] / "docs" / "failures.md").read_text("utf-8")
ROW = re.compile(r"^\| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TABLE = {name: (rule, said, stories) for name, rule, said, stories in ROW.findall(PAGE)}
SPARE = "node-3"
"""The node that fails: the coordinator is on node-1, the pods that are ended are not here."""
SILENT_SECONDS = 60.0
"""The lab's node controller calls a node NotReady 50 s after its last heartbeat."""
MODES = ("gate", "label")


@pytest.fixture
def kept(tmp_path):
    return Ledger(str(tmp_path / "ledger.jsonl"))


@dataclass
class Failing:
    """One story under way: how the pod is ended, and what is known of it afterwards."""

    stage: object
    mode: str
    kept: Ledger
    name: str = ""
    result: dict = field(default_factory=dict)
    client: KubeClient | None = None

    async def choose(self):
        """A pod that is not on the node that fails."""
        for pod in sorted(await self.stage.pods(), key=lambda pod: pod["metadata"]["name"]):
            if pod["spec"]["nodeName"] != SPARE:
                self.name = pod["metadata"]["name"]
                return self.name
        raise AssertionError("every pod is on the node that is to fail")

    def begin(self, seconds=18.0):
        """End the pod: a task. ``seconds``: of patience, as a gate has with a grace of 30."""
        return asyncio.create_task(self._end(seconds))

    async def _end(self, seconds):
        stage = self.stage
        if self.mode == "gate":
            await stage.delete(self.name)
            await stage.gone(self.name)
            self.result = stage.result(self.name) or {}
            return self.result
        options = VerbOptions(seed=0, ledger=self.kept, replace=False, timeout_seconds=seconds)
        made = await drain_pod(self.client or stage.client, NS, self.name, options)
        self.result = {"result": made.result.value, "reason": made.reason, "stragglers": list(made.stragglers)}
        return self.result

    async def ended(self, row, result, node=None):
        """The pod's end is as the page has it: the result, its words, and what the ledger keeps of ``node``."""
        assert self.result["result"] == result, self.result
        assert self.result["stragglers"] == ([node] if node and result in ("timed-out", "verified-except") else [])
        for words in said(row, node or ""):
            assert words in self.result["reason"], self.result["reason"]
        if result == "verified-except":
            assert routed_elsewhere(self.stage, self.name, node) == []
        found = await entries_of(self.stage.client, NS, self.name, self.kept)
        assert found, "it stands in the ledger"
        [answer] = [one for one in found[-1].answers if one.observer == (node or SPARE)]
        assert answer.evidence and answer.at and answer.detail and answer.digest, answer
        return answer


def said(row, node):
    """The words of a row that stand in quotes, about ``node``."""
    return [words.replace("NODE", node) for words in re.findall(r"`([^`]+)`", TABLE[row][1])]


def routed_elsewhere(stage, name, node):
    """Nodes beside ``node`` whose kernels still routed to the pod when it was told to stop."""
    tables, ip, found = {}, "", []
    for entry in sorted(stage.lab.journal(), key=lambda entry: entry["at"]):
        if entry["event"] == "process-started" and entry["pod"] == name:
            ip = entry["ip"]
        elif entry["event"] == "table-committed":
            tables[entry["node"]] = {to.rpartition(":")[0] for all_ in entry["services"].values() for to in all_}
        elif entry["event"] == "signal-sent" and entry["pod"] == name:
            found += [one for one, to in sorted(tables.items()) if ip in to and one != node]
    return found


def tell(mode, kept, story, limit=900, grace=30, **options):
    """Play ``story(failing)`` once, by gate or by labels."""

    async def played(stage):
        failing_ = Failing(stage, mode, kept)
        await failing_.choose()
        return await story(failing_)

    manifest = deployment(gate=mode == "gate", grace=grace)
    return play(played, manifest, limit=limit, **options)


def crash(node):
    """The kubelet dies; what it started runs on, and so does the kernel."""
    [task] = [one for one in asyncio.all_tasks() if one.get_name() == f"kubelet {node}"]
    task.cancel()


@contextlib.asynccontextmanager
async def silenced(stage, node):
    """Nobody answers on ``node``, however often it is started again."""

    async def kill():
        while True:
            for container in ("agent", "holder"):
                with contextlib.suppress(AssertionError):
                    stage.kill(f"tidegate-agent-{node}/{container}")
            await asyncio.sleep(0.02)

    task = asyncio.create_task(kill())
    try:
        yield
    finally:
        task.cancel()


async def go_silent(stage, node):
    """Kubelet and agent are dead, and the node controller has noticed. Its kernel forwards on, its proxy is stuck."""
    crash(node)
    for container in ("agent", "holder"):
        stage.kill(f"tidegate-agent-{node}/{container}")
    stage.fault("proxy-freeze", node, 10_000)
    await asyncio.sleep(SILENT_SECONDS)


async def vouch(stage, says, reason="burnt", ttl=None, by="ann@desk"):
    plan = await plan_vouch(stage.client, SPARE, Vouching(says, by, reason, ttl))
    if not plan.refused:
        await carry_out_vouch(stage.client, plan)
    return plan


def excepting():
    """The addon whose coordinator goes on without standing stragglers."""

    def manifests(facts):
        made = TIDEGATE.manifests(facts)
        for one in made:
            if one["metadata"]["name"] == "tidegate-coordinator":
                one["spec"]["containers"][0]["env"].append({"name": "TIDEGATE_STANDING", "value": "except"})
        return made

    return type(TIDEGATE)(TIDEGATE.name, TIDEGATE.images, manifests)


# --- nodes ---


@pytest.mark.parametrize("mode", MODES)
def test_a_crashed_node_whose_agent_lives_is_read_like_any(mode, kept):
    async def story(one):
        crash(SPARE)
        await asyncio.sleep(SILENT_SECONDS)
        one.stage.fault("proxy-freeze", SPARE, 5)
        await one.begin()
        answer = await one.ended("crashed", "verified")
        assert answer.verdict == "confirmed" and answer.seconds > 4

    tell(mode, kept, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_is_not_ready_and_silent_stands_and_is_named_once_for_the_cluster(mode, kept):
    async def story(one):
        await go_silent(one.stage, SPARE)
        ending = one.begin()
        await asyncio.sleep(10)
        document = (await status_of(one.stage.client, "pod", NS, one.name)).document
        [told] = [problem for problem in document["problems"] if SPARE in problem and "NotReady" in problem]
        assert f"kubectl delete node {SPARE}" in told and f"tidegate vouch node/{SPARE} --dead" in told
        [drain] = document["drains"]
        assert [late["node"] for late in drain["stragglers"]] == [SPARE]
        await ending
        await one.ended("not-ready", "timed-out", SPARE)

    tell(mode, kept, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_standing_node_is_excepted_by_name_where_the_installation_says_so(mode, kept):
    async def story(one):
        await go_silent(one.stage, SPARE)
        await one.begin()
        answer = await one.ended("not-ready-excepted", "verified-except", SPARE)
        assert (answer.verdict, answer.evidence) == ("excepted", "policy")

    tell(mode, kept, story, addons=(excepting(),))


@pytest.mark.parametrize("mode", MODES)
def test_a_node_whose_object_is_deleted_in_the_middle_is_waited_for_no_more(mode, kept):
    async def story(one):
        await go_silent(one.stage, SPARE)
        ending = one.begin()
        await asyncio.sleep(5)
        assert not ending.done()
        await one.stage.api.delete(NODES, SPARE)
        await ending
        answer = await one.ended("deleted", "verified")
        assert answer.verdict == "left" and answer.history[-1].verdict == "unreachable"

    async def judged(one):
        await story(one)
        one.stage.annotations.clear()  # its kernel does forward: whoever deletes a Node object says that it is gone

    tell(mode, kept, judged)


@pytest.mark.parametrize("mode", MODES)
def test_a_node_without_an_agent_is_a_straggler(mode, kept):
    async def story(one):
        await one.stage.api.delete(PODS, f"tidegate-agent-{SPARE}", SYSTEM_NAMESPACE)
        await asyncio.sleep(3)
        await one.begin()
        await one.ended("no-agent", "timed-out", SPARE)

    tell(mode, kept, story)


@pytest.mark.parametrize("mode", MODES)
def test_an_agent_that_cannot_be_reached_is_a_straggler_until_it_is(mode, kept):
    async def story(one):
        async with silenced(one.stage, SPARE):
            ending = one.begin()
            await asyncio.sleep(6)
            assert not ending.done()
        await ending
        answer = await one.ended("unreachable-agent", "verified")
        assert "unreachable" in {turn.verdict for turn in answer.history}

    tell(mode, kept, story, grace=60)


@pytest.mark.parametrize("mode", MODES)
def test_an_agent_that_hangs_is_no_better_than_none(monkeypatch, mode, kept):
    ask = canvass.witness.ask

    async def hanging(peer, node, question):
        if node == SPARE:
            await asyncio.sleep(question.wait_seconds + canvass.ANSWER_SECONDS)
            raise Unreachable(f"{node} has not answered in time")
        return await ask(peer, node, question)

    monkeypatch.setattr(canvass.witness, "ask", hanging)

    async def story(one):
        await one.begin()
        await one.ended("hanging-agent", "timed-out", SPARE)

    tell(mode, kept, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_joins_in_the_middle_of_a_drain_has_a_say(mode, kept):
    async def story(one):
        one.stage.fault("proxy-freeze", SPARE, 4)
        ending = one.begin()
        await asyncio.sleep(2)
        status = {"addresses": [{"type": "InternalIP", "address": "127.16.0.77"}]}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-9"}, "status": status}
        await one.stage.api.create(NODES, node)
        await ending
        await one.ended("new-node", "timed-out", "node-9")

    tell(mode, kept, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_proxy_that_comes_back_from_an_old_list_takes_its_word_back(mode, kept):
    async def story(one):
        kernel = one.stage.lab.lab.kernel
        other = next(node for node in sorted(ADDRESSES) if node != SPARE)
        before = decode_entries(json.loads(await kernel.dump(SPARE))["services"])
        one.stage.fault("proxy-freeze", other, 6)
        ending = one.begin()
        await asyncio.sleep(3)
        current = decode_entries(json.loads(await kernel.dump(SPARE))["services"])
        one.stage.fault("proxy-freeze", SPARE, 100)  # it must not repair the table before we do
        await kernel.commit(SPARE, before)
        await asyncio.sleep(5)
        assert not ending.done(), "the other one has let go, this one shows an older fence"
        document = (await status_of(one.stage.client, "pod", NS, one.name)).document
        [late] = document["drains"][0]["stragglers"]
        assert late["node"] == SPARE
        assert all(words in late["detail"] for words in said("stale-restart", SPARE)), late
        await kernel.commit(SPARE, current)
        one.stage.fault("clear", SPARE)
        await ending
        found = await entries_of(one.stage.client, NS, one.name, one.kept)
        [answer] = [each for each in found[-1].answers if each.observer == SPARE]
        assert one.result["result"] == "verified"
        assert [turn.verdict for turn in answer.history][-3:] == ["confirmed", "pending", "confirmed"]

    tell(mode, kept, story, grace=60)


@pytest.mark.parametrize("mode", MODES)
def test_a_frozen_proxy_is_waited_for_and_named(mode, kept):
    async def story(one):
        one.stage.fault("proxy-freeze", SPARE, 60)
        await one.begin()
        await one.ended("frozen-proxy", "timed-out", SPARE)

    tell(mode, kept, story)


@pytest.mark.parametrize("is_silent", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_node_tainted_out_of_service_is_excepted_by_name_and_only_while_it_is_silent(mode, is_silent, kept):
    async def story(one):
        if is_silent:
            await go_silent(one.stage, SPARE)
        else:
            one.stage.fault("proxy-freeze", SPARE, 10_000)
        found = (await one.stage.api.get(NODES, SPARE))["spec"].get("taints") or []
        taints = [*found, {"key": OUT_OF_SERVICE, "effect": "NoExecute"}]
        await one.stage.api.patch(NODES, SPARE, Patch({"spec": {"taints": taints}}))
        await one.begin()
        if is_silent:
            await one.ended("out-of-service", "verified-except", SPARE)
        else:
            await one.ended("frozen-proxy", "timed-out", SPARE)

    tell(mode, kept, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_somebody_calls_dead_is_excepted_with_his_name_until_he_said(mode, kept):
    async def story(one):
        refused = await vouch(one.stage, "dead")
        assert len(refused.refused) == 2, "it is Ready, and its agent answers"
        await go_silent(one.stage, SPARE)
        ending = one.begin()
        await asyncio.sleep(5)
        assert not ending.done()
        assert not (await vouch(one.stage, "dead", "INC-4711: power supply burnt", ttl=3600)).refused
        await ending
        answer = await one.ended("vouched-dead", "verified-except", SPARE)
        assert (answer.verdict, answer.evidence) == ("excepted", "vouched")
        assert "ann@desk" in answer.detail and "INC-4711" in answer.detail
        await asyncio.sleep(3600)
        document = (await status_of(one.stage.client, "svc", NS, "echo")).document
        assert any("every drain waits" in problem for problem in document["problems"]), "the word is out of date"

    tell(mode, kept, story, limit=5000)


def test_a_word_that_is_withdrawn_or_is_no_word_counts_for_nobody(kept):
    async def story(one):
        await go_silent(one.stage, SPARE)
        await vouch(one.stage, "dead")
        await carry_out_vouch(one.stage.client, await plan_vouch(one.stage.client, SPARE, Vouching("withdraw", "bob")))
        await one.begin()
        await one.ended("not-ready", "timed-out", SPARE)
        await one.stage.ready(2)
        garbled = {"metadata": {"annotations": {"tidegate.dev/vouched": '{"says": "dead"}'}}}
        await one.stage.api.patch(NODES, SPARE, Patch(garbled))
        await one.choose()
        await one.begin()
        await one.ended("not-ready", "timed-out", SPARE)

    tell("gate", kept, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_can_have_no_agent_is_excluded_on_record_and_the_result_is_assumed(mode, kept):
    async def story(one):
        await one.stage.api.delete(PODS, f"tidegate-agent-{SPARE}", SYSTEM_NAMESPACE)
        await asyncio.sleep(3)
        await vouch(one.stage, "no-agent", "serverless, the platform team's")
        began = one.stage.now
        await one.begin(60)
        assert one.stage.now - began > SETTLE_SECONDS
        answer = await one.ended("excluded", "assumed", SPARE)
        assert (answer.verdict, answer.evidence) == ("assumed", "settle time")
        assert "the platform team's" in answer.detail and "ann@desk" in answer.detail

    tell(mode, kept, story, grace=60)


@pytest.mark.parametrize("seconds", [-86400, -60, 60, 86400])
@pytest.mark.parametrize("mode", MODES)
def test_a_node_whose_clock_is_wrong_is_judged_by_its_fence_all_the_same(monkeypatch, mode, seconds, kept):
    """No instant of another machine is compared with ours: epochs order, clocks only tell."""
    acknowledge = canvass.witness.ask

    async def skewed(peer, node, question):
        answer = await acknowledge(peer, node, question)
        if node != SPARE:
            return answer
        return replace(answer, facts=replace(answer.facts, at=answer.facts.at + seconds))

    class Clock:
        @staticmethod
        def now():
            return vtime.now() + timedelta(seconds=min(seconds, 0))

    monkeypatch.setattr(canvass.witness, "ask", skewed)
    monkeypatch.setattr(drains, "vtime", Clock)

    async def story(one):
        one.stage.fault("proxy-freeze", SPARE, 5)
        began = one.stage.now
        await one.begin()
        assert 4 < one.stage.now - began < 9
        await one.ended("clock-skew", "verified")

    tell(mode, kept, story)


def test_a_pod_on_a_crashed_node_is_never_called_verified(kept):
    """Nobody can see what is in flight to it, and nobody can stop it."""

    async def story(one):
        name = next(pod["metadata"]["name"] for pod in await one.stage.pods() if pod["spec"]["nodeName"] == SPARE)
        await go_silent(one.stage, SPARE)
        await vouch(one.stage, "dead")
        one.name = name
        await one.begin()
        assert await node_of(one.stage, name) == SPARE, "it is still there, cut"
        assert one.result["result"] == "timed-out", one.result
        assert all(words in one.result["reason"] for words in said("pod-on-crashed", SPARE)), one.result

    tell("label", kept, story)


# --- the API, the coordinator ---


def _weather(answer):
    def story_of(mode, kept, monkeypatch, seconds, expected):
        async def story(one):
            local = Weather(one.stage.lab.lab.exchange)
            one.client = KubeClient(local, "lab")
            ending = one.begin(25)
            await asyncio.sleep(0.5)
            turn(answer)
            local.is_off = answer
            await asyncio.sleep(seconds)
            turn(None)
            local.is_off = None
            await ending
            if expected == "verified":
                await one.ended("api-down", expected)
            assert one.result.get("result") in (expected, None), one.result

        with weather(monkeypatch) as turn:
            tell(mode, kept, story)

    return story_of


async def down(request):
    raise Unreachable("the API is down")


WEATHERS = {
    "down": down,
    "429": failing(429, "TooManyRequests"),
    "409": failing(409, "Conflict"),
    "500": failing(500, "InternalError"),
}


@pytest.mark.parametrize("kind", WEATHERS)
@pytest.mark.parametrize("mode", MODES)
def test_an_api_that_is_down_or_in_bad_weather_is_waited_for(monkeypatch, mode, kind, kept):
    _weather(WEATHERS[kind])(mode, kept, monkeypatch, 8, "verified")


@pytest.mark.parametrize("kind", WEATHERS)
@pytest.mark.parametrize("mode", MODES)
def test_an_api_that_stays_away_is_never_made_up_for(monkeypatch, mode, kind, kept):
    _weather(WEATHERS[kind])(mode, kept, monkeypatch, 40, "timed-out")


@pytest.mark.parametrize("mode", MODES)
def test_a_coordinator_that_dies_costs_time(mode, kept):
    async def story(one):
        one.stage.fault("proxy-freeze", SPARE, 5)
        ending = one.begin()
        await asyncio.sleep(2)
        one.stage.kill("tidegate-coordinator/coordinator")
        await ending
        await one.ended("coordinator-dead", "verified")

    tell(mode, kept, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_coordinator_that_is_gone_for_good_is_named(mode, kept):
    async def story(one):
        one.stage.fault("proxy-freeze", SPARE, 5)
        ending = one.begin()
        await asyncio.sleep(2)
        await one.stage.api.delete(PODS, "tidegate-coordinator", SYSTEM_NAMESPACE)
        await ending
        assert one.result["result"] == "timed-out"
        assert all(words in one.result["reason"] for words in said("coordinator-gone", SPARE)), one.result

    tell(mode, kept, story)


# --- the page ---


def test_every_row_of_the_page_has_stories_that_exist():
    here = Path(__file__).parents[1]
    known = {
        name: path.relative_to(here).as_posix()
        for path in sorted(here.rglob("test_*.py"))
        for name in re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(TABLE) >= 20
    for row, (_, _, stories) in TABLE.items():
        named = re.findall(r"`(test_\w+)`", stories)
        assert named, row
        assert not [name for name in named if name not in known], row
        assert re.findall(r"\(([\w/]+\.py)\)", stories) == [
            path for path in dict.fromkeys(known[name] for name in named) if path != "scenarios/test_failure_model.py"
        ], row


def test_every_story_here_is_on_the_page():
    stories = re.findall(r"^def (test_\w+)\(", Path(__file__).read_text("utf-8"), re.MULTILINE)
    told = {name for _, _, named in TABLE.values() for name in re.findall(r"`(test_\w+)`", named)}
    assert [name for name in stories if name not in told] == [
        "test_every_row_of_the_page_has_stories_that_exist",
        "test_every_story_here_is_on_the_page",
        "test_an_excuse_that_counted_for_a_node_that_answers_would_be_seen",
    ]


def test_an_excuse_that_counted_for_a_node_that_answers_would_be_seen(monkeypatch, kept):
    """The judge has teeth: a coordinator that takes a word over an answer is caught by the kernels' journal."""
    real = excuses.excused

    def careless(answer, excuse, policy, waited):
        made = real(answer, excuse, policy, waited)
        return type(made)(made.observer, type(made.verdict).CONFIRMED, made.epoch, made.evidence)

    monkeypatch.setattr(excuses, "excused", careless)

    async def story(one):
        one.stage.fault("proxy-freeze", SPARE, 10_000)
        word = encode_vouch(VouchRecord("no-agent", "none can run there", "ann@desk", "2026-01-01T11:00:00Z"))
        await one.stage.api.patch(NODES, SPARE, Patch({"metadata": {"annotations": word}}))
        await one.begin()
        found.extend(lies(one.stage))

    found = []
    with pytest.raises(AssertionError):
        tell("gate", kept, story)
    assert [line for line in found if line.endswith("was routed to by node-3")], found
