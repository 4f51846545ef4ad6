"""docs/json.md lists every key that ``-o json`` prints, and no other: held against real output in virtual time."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from stage import NS, deployment, first, other_node, play

from tidegate import vtime
from tidegate.cli import drain_node, inspect, mutate, sim
from tidegate.cli import ledger as ledger_command
from tidegate.cli import prepare as prepare_command
from tidegate.cli.isolate import keeping
from tidegate.cli.restore import giving_back
from tidegate.client import About, PrepareOptions, VerbOptions, cut_pod, drain_pod, prepare_service, status_of
from tidegate.client.doctor import examine
from tidegate.client.ledger import Wanted, find
from tidegate.client.observe import Observation, Subject, observe
from tidegate.client.prepare.plan import plan_prepare
from tidegate.client.status import orphans_of
from tidegate.client.targets import Targets
from tidegate.client.trace import trace_pod
from tidegate.client.verify import VerifyOptions, verify_pod
from tidegate.dataplane import dumps
from tidegate.dataplane.facts import Unreadable
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import PODS, Patch
from tidegate.kube.kubeconfig import Cluster
from tidegate.lab.faults import Fault
from tidegate.lab.network.network import Peer
from tidegate.model.epoch import Epoch
from tidegate.model.names import HELD, DrainRecord, DrainResult, Ending, encode_drain, encode_result
from tidegate.rehearse.addons import TIDEGATE
from tidegate.rehearse.settings import ROWS, Settings
from tidegate.rehearse.verdict import as_json
from tidegate.rehearse.virtual import rehearse_virtually

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text("utf-8")
TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "null": type(None),
}


def listed(command: str) -> dict[str, str]:
    """The table under a command's heading: key -> type, as they are written."""
    section = PAGE.split(f"## tidegate {command}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", section, re.MULTILINE))


def leaves(value, path=""):
    """(path, value) of every leaf; an empty list or object is a leaf of its own kind and tells nothing."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for below in value:
            yield from leaves(below, f"{path}[]")
    elif value != {}:
        yield path, value


def pattern(key: str) -> re.Pattern[str]:
    """A listed key as an expression: a word in capitals is any key, ``?`` only says that it may be missing."""
    text = re.escape(key.replace("?", ""))
    text = re.sub(r"\bLABEL\b", r"[^\[\]]+", text)  # tidegate.dev/held
    return re.compile(re.sub(r"\b[A-Z]+\b", r"[^.\[\]]+", text))


def assert_as_listed(command: str, *documents) -> None:
    """Every leaf is listed with its type; every listed key that is not optional was there."""
    keys = {key: (pattern(key), kind) for key, kind in listed(command).items()}
    met = set()
    for document in documents:
        for path, value in leaves(document):
            found = [key for key, (fits, _) in keys.items() if fits.fullmatch(path)]
            assert found, f"{command}: {path} is not in docs/json.md"
            kinds = tuple(TYPES[word] for word in keys[found[0]][1].split(" or "))
            assert isinstance(value, kinds), f"{command}: {path} is {value!r}"
            assert isinstance(value, bool) == (kinds == (bool,)), f"{command}: {path} is {value!r}"
            met.add(found[0])
    assert {key for key in keys if "?" not in key} <= met, "listed, and never seen"


@pytest.fixture(scope="module")
def demo():
    rows = tuple(row for row in ROWS if row.name in ("plain", "tidegate"))
    settings = Settings(rows=rows, replicas=2, requests_min=0, new_per_second=60.0, pool_per_second=60.0)
    return rehearse_virtually(settings, addons=(TIDEGATE,))


def test_the_demos_keys_are_those_of_the_page(demo):
    assert_as_listed("demo", as_json(demo))


def test_the_demos_optional_keys_are_those_of_the_page(demo):
    """What only a bad run shows: reasons, stragglers, an invalid run, a contradiction."""
    run = replace(demo.runs[1], invalid="too busy", contradictions=("node-1 still routed to it",))
    track = run.timeline.old[0]
    late = msgspec.structs.replace(track.seen.result, reason="late", stragglers=("node-2",))
    line = replace(run.timeline, tracks=(replace(track, seen=replace(track.seen, result=late)),))
    document = as_json(replace(demo, runs=(demo.runs[0], replace(run, timeline=line))))
    assert_as_listed("demo", document)
    paths = {path for path, _ in leaves(document)}
    optional = {key.replace("?", "") for key in listed("demo") if "?" in key}
    assert optional <= paths


LAB = Cluster("http://127.16.0.1:6443", "lab", NS)
GIVEN = {"dry_run": False, "yes": True, "output": "json", "keep_going": False, "parallel": 4}


def test_a_drains_keys_are_those_of_the_page():
    async def story(stage, seconds):
        name = await first(stage)
        if seconds < 60:
            stage.fault("proxy-freeze", await other_node(stage, name), 90)
        options = VerbOptions(seed=0, timeout_seconds=seconds, replace=False)
        deed = mutate.deed("drain", Targets(NS, (name,)), options)
        (document,), _ = await mutate._run(LAB, deed, GIVEN)
        return document

    verified = play(lambda stage: story(stage, 60), deployment(gate=False))
    late = play(lambda stage: story(stage, 3), deployment(gate=False))
    assert (verified["result"], late["result"]) == ("verified", "timed-out")
    assert_as_listed("drain", verified, late)


def test_the_keys_of_a_plan_are_those_of_the_page():
    async def story(stage):
        deed = mutate.deed("drain", Targets(NS, (await first(stage),)), VerbOptions(seed=0, floor=9))
        (document,), codes = await mutate._run(LAB, deed, GIVEN | {"dry_run": True})
        assert codes == [3]
        return document

    assert_as_listed("drain --dry-run", play(story, deployment(gate=False)))


def test_the_keys_of_a_nodes_drain_are_those_of_the_page():
    async def story(stage, seconds):
        name = await first(stage)
        node = (await stage.api.get(PODS, name, NS))["spec"]["nodeName"]
        if seconds < 60:
            stage.fault("proxy-freeze", await other_node(stage, name), 90)
        options = VerbOptions(seed=0, timeout_seconds=seconds, replace=False)
        document, _ = await drain_node.drained(LAB, node, options, GIVEN)
        return document

    late = play(lambda stage: story(stage, 3), deployment(gate=False))
    assert_as_listed("drain node", play(lambda stage: story(stage, 60), deployment(gate=False)), late)


def test_the_keys_of_an_isolation_and_of_a_restore_are_those_of_the_page():
    async def told(deed, **given):
        (document,), _ = await mutate._run(LAB, deed, GIVEN | given)
        return document

    async def story(stage):
        about, options = Targets(NS, (await first(stage),)), VerbOptions(seed=0)
        isolation = [await told(keeping(options)(about), dry_run=True), await told(keeping(options)(about))]
        back = giving_back(options)(about)
        restores = [await told(back, dry_run=True), await told(back)]
        assert [one.get("result") for one in (*isolation, *restores)] == [None, "verified", None, "verified"]
        refused = await told(giving_back(options, "nosuch")(about), dry_run=True)
        assert refused["refusals"]
        cut_again = VerbOptions(seed=0, timeout_seconds=60)
        await cut_pod(stage.client, NS, about.names[0], cut_again)
        return isolation, [*restores, refused, await told(giving_back(cut_again)(about))]

    isolations, restores = play(story, deployment(gate=False))
    assert_as_listed("isolate", *isolations)
    assert_as_listed("restore", *restores)


def test_a_status_keys_are_those_of_the_page():
    async def story(stage):
        name, other = sorted(pod["metadata"]["name"] for pod in await stage.pods())[:2]
        stage.fault("proxy-freeze", await other_node(stage, name), 6)
        reader, writer = await asyncio.open_connection(*await address(stage, name), local_addr=("127.16.0.11", 0))
        await stage.delete(name)
        await stage.api.patch(PODS, other, Patch({"metadata": {**HELD_BY_HAND}}), NS)
        await asyncio.sleep(2.5)
        subjects = (("svc", "echo"), ("pod", name), ("pod", other), ("deploy", "echo"), ("namespace", ""))
        found = [(await status_of(stage.client, kind, NS, one)).document for kind, one in subjects]
        found.append((await orphans_of(stage.client, NS)).document)
        writer.close()
        await stage.gone(name)
        del reader
        return found

    documents = play(story, deployment(grace=20))
    of_service, of_pod = documents[0], documents[1]
    unknown = {
        "drains": [{**of_service["drains"][0], "reasons": ["still listed"]}],
        "services": [{**of_service["services"][0], "reasons": ["no selector"]}],
        "problems": ["there is no coordinator in this cluster"],
        "pod": {"suspected": ["a headless Service hands out its address"], "foreign": ["a slice lists it"]},
        "pods": [{**of_pod["pod"], "suspected": ["a headless Service"], "foreign": ["a slice lists it"]}],
    }
    assert_as_listed("status", *json.loads(json.dumps(documents)), unknown)


HELD_BY_HAND = {
    "labels": {"app": "mine", HELD: "cut"},
    "annotations": {
        **encode_drain(
            DrainRecord(
                "t", "CUT", "label", until="2020-01-01T00:00:00Z", labels={"app": "echo"}, changed={"app": "off"}
            )
        ),
        **encode_result(DrainResult(Ending.ASSUMED, "nobody to ask")),
    },
}
"""A pod that somebody cut and forgot, and somebody else relabelled."""


async def address(stage, name):
    for pod in await stage.pods():
        if pod["metadata"]["name"] == name:
            return pod["status"]["podIP"], 8080
    raise AssertionError(name)


def test_a_traces_keys_are_those_of_the_page():
    async def story(stage):
        return (await trace_pod(stage.client, NS, await first(stage))).document

    assert_as_listed("trace", play(story))


def test_a_ledgers_keys_are_those_of_the_page(tmp_path):
    kept = Ledger(str(tmp_path / "ledger.jsonl"))

    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 90)
        await drain_pod(stage.client, NS, name, VerbOptions(seed=0, timeout_seconds=3, replace=False, ledger=kept))
        return json.loads(ledger_command.rendered(await find(stage.client, kept, Wanted(NS)), "json"))

    late = play(story, deployment(gate=False))
    assert late["items"][0]["answers"][0]["seconds"] is None
    extras = {
        "services": [], "suspected": ["a headless Service"], "regressions": ["node-1 refuted"],
        "connections_at_cut": {"count": None, "clients": ["10.0.0.9"], "problem": "not read"},
        "connections_at_end": {"count": 0, "clients": ["10.0.0.9"], "problem": ""},
    }  # fmt: skip
    assert_as_listed("ledger", late, {"items": [late["items"][0] | extras], "notes": ["node-1: silent"]})


def test_an_observations_keys_are_those_of_the_page():
    async def story(stage):
        found = Observation(Subject(NS), vtime.now())
        watching = asyncio.create_task(anext(observe(stage.client, found.subject, 60.0, found)))
        await asyncio.sleep(1)
        await stage.delete(await first(stage))
        await watching
        return found.document

    documents = [play(story, deployment(gate=False)), play(story, deployment(gate=False), addons=())]
    assert_as_listed("observe", *json.loads(json.dumps(documents)))


def test_the_doctors_keys_are_those_of_the_page():
    async def story(stage):
        return {"context": "lab", **(await examine(stage.client, NS)).document}  # as cli/doctor.py adds it

    assert_as_listed("doctor", play(story))


def test_a_verifys_keys_are_those_of_the_page():
    async def story(stage):
        name = await first(stage)
        node = next(pod["spec"]["nodeName"] for pod in await stage.pods() if pod["metadata"]["name"] == name)
        _, writer = await asyncio.open_connection(*await address(stage, name), local_addr=("127.16.0.11", 0))
        options = VerifyOptions(timeout_seconds=5, probes=3, path="/", seed=0)
        found = [(await verify_pod(stage.client, NS, name, options)).document]
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "mine"}}}), NS)
        found.append((await verify_pod(stage.client, NS, name, options)).document)
        stage.fault("proxy-freeze", node, 30)
        found.append((await verify_pod(stage.client, NS, name, options)).document)
        writer.close()
        return found

    documents = play(story, deployment(gate=False))
    assert_as_listed("verify", *documents, {"suspected": ["clients of the headless Service keep its address"]})
    optional = {key.replace("?", "") for key in listed("verify") if "?" in key}
    assert optional <= {path for document in documents for path, _ in leaves(document)} | {"suspected[]"}


def test_a_prepares_keys_are_those_of_the_page():
    async def story(stage):
        about, options = About(NS, "echo", ("echo",)), PrepareOptions(in_place=True, seed=0)
        plan = await plan_prepare(stage.client, about, options)
        return prepare_command.document(plan, await prepare_service(stage.client, about, options))

    document = play(story, deployment(gate=False), addons=())
    keys = {**document, "label.key": document["label"]["key"], "label.value": document["label"]["value"]}
    assert keys.keys() - {"label"} == listed("prepare").keys()
    words = {"string": str, "array": list, "boolean": bool, "number": (int, float)}
    assert all(isinstance(keys[key], words[type_]) for key, type_ in listed("prepare").items())


def test_inspects_keys_are_those_of_the_page():
    folder = Path(__file__).parents[1] / "golden" / "dataplane"
    rules = dumps.read((folder / "v1.36.2-nftables-f-nodeport-sessionaffinity-nft.txt").read_text())
    flows = dumps.read((folder / "v1.36.2-nftables-g-udp-conntrack.txt").read_text())
    unread = replace(rules, fence=(Epoch("k3f9", 41),), unreadable=(Unreadable("not understood", "somewhere"),))
    assert_as_listed("inspect", *map(inspect.document_of, (unread, flows)))


def test_a_labs_keys_are_those_of_the_page():
    async def story(stage):
        stage.lab.lab.faults.apply(Fault("proxy-kill", "node-1"))
        stage.lab.lab.faults.apply(Fault("api-errors", "", 8, 0.3))
        stage.lab.lab.faults.apply(Fault("proxy-lag", "node-2", 8))
        client = Peer("client", ("10.16.0.2",), "/proc/4711/fd/7")  # as network kernel has one
        stage.lab.lab.network.clients = lambda: (client,)
        return stage.lab.lab.status()

    known = {"state": "up", "pid": 4711, "started_at": "2026-11-21T10:00:00+00:00"}  # as cli/lab.py adds them
    assert_as_listed("lab status", {**play(story), **known})


def test_a_lab_tokens_keys_are_those_of_the_page():
    async def story(stage):
        stage.lab.lab.register_token("alice", ["get,list:pods"], NS)
        return stage.lab.lab.server.access.tokens()

    assert_as_listed("lab token", *play(story))


def test_a_simulations_keys_are_those_of_the_page():
    played = sim._play((0, 4.0))
    assert [run["name"] for run in played.pop("runs")] == [row.name for row in ROWS]
    summary = {"seeds": 1, "first": 0, "failed": [0], "wall_seconds": 0.5}  # as cli/sim.py sums up
    assert_as_listed("sim", {**summary, "runs": [{**played, "reasons": ["lost"]}]})
