"""Every verb while the API server is in trouble (`lab fault api-errors`): the same end, or one clear line and what
stands."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from dataclasses import replace

import pytest
from scene import play
from stage import NS, deployment, first, node_of
from under_load import Floor, Load

from tidegate import vtime
from tidegate.cli import drain_node, mutate, prepare, status, verify
from tidegate.cli.isolate import cutting, keeping
from tidegate.cli.main import _explain
from tidegate.cli.restore import giving_back
from tidegate.client import VerbOptions
from tidegate.client.options import Identity
from tidegate.client.prepare.plan import PrepareOptions
from tidegate.client.prepare.scene import About
from tidegate.client.targets import Targets
from tidegate.client.verify import VerifyOptions
from tidegate.kube.api import PODS, SERVICES, Selection
from tidegate.kube.errors import KubeError
from tidegate.kube.kubeconfig import Cluster
from tidegate.lab.faults import Fault
from tidegate.model.names import RESERVATIONS, decode_drain

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
GIVEN = {"dry_run": False, "yes": True, "output": "text", "parallel": 4}
SHOWN = {"orphans": False, "watch": False, "all_namespaces": False, "selector": "", "output": "table", "why": False}
OPTIONS = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"))
UNGATED = deployment(gate=False)
BAD_SECONDS = 12.0
LIMIT_SECONDS = 20


def bad(stage, seconds=BAD_SECONDS, share=0.7):
    stage.lab.lab.faults.apply(Fault("api-errors", "", seconds, share))


async def verb(name, pod, options=OPTIONS):
    """Exit code of one verb on one pod, as the command line runs it."""
    made = {
        "drain": lambda about: mutate.deed("drain", about, options),
        "cut": lambda about: mutate.deed("cut", about, options),
        "isolate --keep-traffic": keeping(options),
        "isolate --cut-traffic": cutting(options),
        "restore": giving_back(options),
    }[name]
    try:
        _, codes = await mutate._run(CLUSTER, made(Targets(NS, (pod,))), GIVEN)
        return codes[0]
    except KubeError as error:
        text, code = _explain(error)
        print(f"error: {text}", file=sys.stderr)
        return code


async def held(stage):
    """Pod -> its record, of pods that a verb holds."""
    found = {pod["metadata"]["name"]: pod for pod in (await stage.api.list(PODS, Selection(NS))).items}
    records = {name: decode_drain(pod["metadata"].get("annotations") or {}) for name, pod in found.items()}
    return {name: one for name, one in records.items() if one is not None and one.state != "RESTORED"}


async def reserved(stage):
    metadata = (await stage.api.get(SERVICES, "echo", NS))["metadata"]
    return (metadata.get("annotations") or {}).get(RESERVATIONS)


SEEDS = range(6)
AFTER = (0.0, 0.01, 0.3, 0.9, 1.6, 2.2)
"""Seconds into a verb, by seed: before its plan, and in the middle of its steps."""
CHANGING = ("drain", "cut", "isolate --keep-traffic", "isolate --cut-traffic")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CHANGING)
def test_a_verb_comes_to_the_same_end_and_nothing_is_lost(name, seed):
    async def story(stage):
        pod, floor = await first(stage), Floor(stage)
        watching = asyncio.create_task(floor.watch())
        async with Load(stage).running():
            later = asyncio.get_running_loop().call_later
            later(AFTER[seed], bad, stage)
            assert await verb(name, pod) == 0
            if name != "drain":
                assert list(await held(stage)) == [pod]
                await stage.ready(3 if name == "isolate --keep-traffic" else 4)
            else:
                assert await held(stage) == {}
            assert await reserved(stage) is None
            if name != "drain":
                await asyncio.sleep(BAD_SECONDS)
                later(AFTER[seed], bad, stage)
                assert await verb("restore", pod) == 0
                assert await held(stage) == {} and await reserved(stage) is None
        watching.cancel()
        assert floor.least >= 2
        assert len(await stage.pods()) == 3

    play(story, UNGATED, seed=seed)


@pytest.mark.parametrize(("seed", "after"), [(112, 2.479), (122, 2.388), (139, 2.78)])
def test_what_cannot_be_listed_at_the_last_look_is_asked_for_again(seed, after):
    """Once, an Ingress that could not be listed in that moment made the result ``assumed``."""

    async def story(stage):
        asyncio.get_running_loop().call_later(after, bad, stage, 8.0, 0.5)
        assert await verb("drain", await first(stage)) == 0

    play(story, UNGATED, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_is_drained_and_nothing_is_lost(seed):
    async def story(stage):
        node = await node_of(stage, await first(stage))
        async with Load(stage).running():
            asyncio.get_running_loop().call_later(AFTER[seed], bad, stage)
            document, code = await drain_node.drained(CLUSTER, node, OPTIONS, GIVEN)
        assert code == 0 and document["cordoned"]
        assert all(one["pod"].startswith("tidegate-system/tidegate-") for one in document["left"])
        assert {one["result"] for one in document["items"]} == {"verified"}
        assert {pod["spec"]["nodeName"] for pod in await stage.pods()}.isdisjoint({node})

    play(story, UNGATED, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_is_prepared_and_taken_back_and_nothing_is_lost(seed):
    async def story(stage):
        about = About(NS, "echo", ("echo",))
        given = GIVEN | {"in_place": True}
        for is_abort, end in ((False, "prepared"), (True, "aborted")):
            options = PrepareOptions(in_place=True, is_abort=is_abort, timeout_seconds=120, seed=seed)
            async with Load(stage).running():
                asyncio.get_running_loop().call_later(AFTER[seed], bad, stage)
                document, code = await prepare._run(CLUSTER, about, options, given)
            assert (document["result"], code) == (end, 0), document

    play(story, UNGATED, seed=seed)


def test_verify_and_status_say_what_they_say_otherwise(capsys):
    async def story(stage):
        pod = await first(stage)
        capsys.readouterr()
        bad(stage)
        (found,) = await verify._verify(CLUSTER, Targets(NS, (pod,)), VerifyOptions(seed=0))
        assert found["result"] == "routed"
        await status._show(CLUSTER, NS, ("svc", "echo"), SHOWN)
        said = capsys.readouterr()
        assert pod in said.out and re.search(r"the API answers (429|500|503) to GET /\S+, again in \d", said.err)

    play(story, UNGATED)


# --- an API that does not get better ---


@pytest.mark.parametrize("name", CHANGING)
def test_a_bad_api_for_good_before_anything_was_done_is_one_line_and_nothing_is_changed(name, capsys):
    async def story(stage):
        pod = await first(stage)
        bad(stage, 3600.0, 1.0)
        capsys.readouterr()
        began = stage.now
        assert await verb(name, pod, replace(OPTIONS, timeout_seconds=10)) == 1
        assert stage.now - began <= 12, "never beyond its own timeout"
        said = capsys.readouterr().err
        assert "for 10 s at most" in said
        assert re.search(r"error: the API server answers (429|500|503): .*; `kubectl get --raw .*again goes on", said)
        assert await held(stage) == {} and await reserved(stage) is None

    play(story, UNGATED)


@contextlib.contextmanager
def broken_after(stage, count):
    """The API server is in trouble for good as soon as a command line begun from here on has made ``count`` writes, or
    tried the one after."""
    hosted, writes = vtime.hosted(), []
    known = hosted[CLUSTER.server]

    async def exchange(request):
        if request.method in ("PATCH", "DELETE"):
            writes.append(f"{request.method} {request.path}")
            if len(writes) == count + 1:
                bad(stage, 3600.0, 1.0)
        return await known(request)

    hosted[CLUSTER.server] = exchange
    try:
        yield writes
    finally:
        hosted[CLUSTER.server] = known


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("name", [*CHANGING, "restore"])
def test_a_bad_api_for_good_after_any_write_says_what_stands_and_is_gone_on_from(name, count, capsys):
    async def story(stage):
        pod = await first(stage)
        if name == "restore":
            assert await verb("cut", pod) == 0
            await stage.ready(4)
        async with Load(stage).running():
            began = stage.now
            capsys.readouterr()
            with broken_after(stage, count) as writes:
                code = await verb(name, pod, replace(OPTIONS, timeout_seconds=LIMIT_SECONDS))
            said = "".join(capsys.readouterr())
            # The replacement, and the cut, each have the timeout for themselves; the last write is given up 10 s later.
            assert stage.now - began <= 2 * LIMIT_SECONDS + 15
            assert code in ((0,) if len(writes) <= count else (0, 1, 4))
            if code:
                assert f"pod/{pod}" in said and re.search("goe?s? on|assumed after|timed-out after", said), said
            if code == 1:
                assert "error: " in said and f"`tidegate status pod/{pod}" in said
            stage.lab.lab.faults.apply(Fault("clear", ""))
            await asyncio.sleep(16)  # the lease of a run that could not give it back
            if pod in {one["metadata"]["name"] for one in await stage.pods()}:
                assert await verb(name, pod) == 0
        await stage.ready(3)
        assert await reserved(stage) is None
        assert list(await held(stage)) == ([] if name in ("drain", "restore") else [pod])

    play(story, UNGATED)


def test_a_bad_api_for_good_while_a_service_is_prepared_says_what_was_begun_and_is_gone_on_from(capsys):
    async def story(stage):
        about, given = About(NS, "echo", ("echo",)), GIVEN | {"in_place": True}
        options = PrepareOptions(in_place=True, timeout_seconds=LIMIT_SECONDS, seed=0)
        async with Load(stage).running():
            began = stage.now
            with contextlib.suppress(KubeError):
                with broken_after(stage, 2):
                    document, code = await prepare._run(CLUSTER, about, options, given)
                assert (document["result"], code) == ("stopped", 1)
            assert stage.now - began <= LIMIT_SECONDS + 10
            assert "`tidegate prepare deploy/echo --service echo` goes on" in "".join(capsys.readouterr())
            stage.lab.lab.faults.apply(Fault("clear", ""))
            await asyncio.sleep(16)
            document, code = await prepare._run(CLUSTER, about, replace(options, timeout_seconds=120), given)
            assert (document["result"], code) == ("prepared", 0)

    play(story, UNGATED)


def test_a_bad_api_for_good_while_a_node_is_drained_leaves_what_came_of_each_pod(capsys):
    async def story(stage):
        node = await node_of(stage, await first(stage))
        async with Load(stage).running():
            began = stage.now
            brief = replace(OPTIONS, timeout_seconds=LIMIT_SECONDS)
            with broken_after(stage, 4):
                document, code = await drain_node.drained(CLUSTER, node, brief, GIVEN)
            assert code == 4
            assert stage.now - began <= 2 * LIMIT_SECONDS + 15
            assert [one["result"] for one in document["items"]] == ["timed-out"] and document["cordoned"]
            assert "goes on" in document["items"][0]["reason"]
            stage.lab.lab.faults.apply(Fault("clear", ""))
            await asyncio.sleep(16)
            document, code = await drain_node.drained(CLUSTER, node, OPTIONS, GIVEN)
            assert (code, [one["result"] for one in document["items"]]) == (0, ["verified"])

    play(story, UNGATED)
