"""`tidegate release` as it is read: plans, progress, refusals, and the verbs one after the other."""

from __future__ import annotations

import asyncio
import itertools
import json
import shlex

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from operator_stage import Hand, seen, served
from stage import NS, SERVICE, deployment, play
from terminal_of_releases import BOB, CLUSTER, Terminal, interrupted, plain

from tidegate import vtime
from tidegate.cli import release as command
from tidegate.cli import suggest
from tidegate.cli.main import tidegate
from tidegate.client.release.book import ConfigMapBook
from tidegate.kube import kubeconfig
from tidegate.kube.api import CONFIGMAPS, DEPLOYMENTS, RELEASES, SERVICES, Deletion, Patch, Selection
from tidegate.kube.kubeconfig import Cluster

V2 = "--image echo=tidegate/echo:v2"


@pytest.fixture
def terminal(capsys, monkeypatch, tmp_path):
    return Terminal(capsys, monkeypatch, tmp_path)


def test_plans_as_they_are_read(terminal, golden):
    async def story(stage):
        return await terminal.read(
            f"start deploy/echo {V2} --dry-run",
            f"start deploy/echo {V2} --dry-run --strategy bluegreen --manual",
            f"start deploy/echo {V2} --dry-run --strategy canary --steps 34:5m,67:promote,100",
            f"start deploy/echo {V2} --dry-run --strategy rainbow --cap 2",
            f"start deploy/echo {V2} --dry-run -o json",
        )

    golden("cli/release-plans.txt", play(story))


def test_plans_for_pods_without_a_gate(terminal, golden):
    async def story(stage):
        return await terminal.read(
            f"start deploy/echo {V2} --dry-run",
            f"start deploy/echo {V2} --dry-run --ungated proceed",
            f"start deploy/echo {V2} --dry-run --strategy bluegreen",
        )

    golden("cli/release-plans-ungated.txt", play(story, deployment(gate=False)))


def test_a_rolling_release_from_its_start_to_the_way_back(terminal, golden):
    async def story(stage):
        return await terminal.read(
            "list",
            f"start deploy/echo {V2}",
            "status deploy/echo",
            "list",
            "history deploy/echo",
            f"start deploy/echo {V2}",
            "abort deploy/echo",
            "rollback deploy/echo --to nosuch",
            "rollback deploy/echo",
            "history deploy/echo",
            "list -A",
            "list -o name",
        )

    golden("cli/release-rolling.txt", play(story))


REFUSED = (
    f"start deploy/nosuch {V2}",
    f"start deploy/nosuch {V2} --strategy bluegreen",
    "start deploy/echo --image sidecar=shop/sidecar:2 --dry-run",
    "start deploy/echo",
    "start deploy/echo --image echo",
    "start",
    "start deploy/echo --image echo=tidegate/echo:v1",
    f"start deploy/echo {V2} --strategy canary --steps 10:soon",
    f"start deploy/echo {V2} --strategy canary --steps ten",
    f"start deploy/echo {V2} --strategy canary --steps 50,20",
    f"start deploy/echo {V2} --strategy canary --steps 110",
    f"start deploy/echo {V2} --strategy canary",
    f"start deploy/echo {V2} --strategy canary --steps 10 --route ingress/web",
    f"start deploy/echo {V2} --strategy bluegreen --steps 10,100",
    f"start deploy/echo {V2} --strategy canary --steps 10 --keep 5m",
    f"start deploy/echo {V2} --cap 3",
    f"start deploy/echo {V2} --strategy rainbow --cap 1",
    f"start deploy/echo {V2} --strategy bluegreen --service nosuch",
    f"start deploy/echo {V2} --keep soon --strategy bluegreen",
    f"start pod/echo {V2}",
    "start -f WRONG",
    "start -f TYPED",
    "start -f NOTHING",
    "start -f MISSING",
    "status deploy/echo",
    "history deploy/echo",
    "promote deploy/echo",
    "pause deploy/echo",
    "resume deploy/echo",
    "abort deploy/echo",
    "rollback deploy/echo",
    "retire deploy/echo",
)
FILES = {
    "WRONG": "kind: Release\nspec: {workload: echo, strategy: canary, canary: {steps: [{weight: 120}]}}\n",
    "TYPED": "kind: Release\nspec: {workload: echo, images: {echo: b}, canary: {steps: [{weight: many}]}}\n",
    "NOTHING": "kind: Service\n",
}


def test_what_is_refused_says_why_and_changes_nothing(terminal, golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)

    async def story(stage):
        before = await written(stage)
        told = ""
        for line in REFUSED:
            told += await terminal.type(line)
            assert await written(stage) == before, told
        return told

    golden("cli/release-refusals.txt", play(story))


async def written(stage):
    """Every object that a release may make or change, as it stands."""
    found = []
    for kind in (DEPLOYMENTS, SERVICES, CONFIGMAPS):
        listed = (await stage.api.list(kind, Selection(NS))).items
        found += [(kind.plural, one["metadata"]["name"], one.get("spec")) for one in listed]
    return found


def test_services_that_are_none_or_too_many_are_named(terminal, golden):
    async def story(stage):
        other = {**SERVICE, "metadata": {"name": "again", "namespace": NS}}
        await stage.api.create(SERVICES, other)
        told = await terminal.read(f"start deploy/echo {V2} --strategy bluegreen --dry-run")
        for name in ("again", "echo"):
            await stage.api.delete(SERVICES, name, NS, Deletion())
        return told + await terminal.read(
            f"start deploy/echo {V2} --strategy bluegreen --dry-run",
            f"start deploy/echo {V2} --strategy rainbow --dry-run",
        )

    golden("cli/release-services.txt", play(story))


def test_a_release_asked_for_midway_through_another_takes_its_own_helpers_for_nobodys(terminal, golden):
    async def story(stage):
        return await terminal.read(
            f"start deploy/echo {V2} --strategy bluegreen --manual --preview next",
            "start deploy/echo --image echo=tidegate/echo:v3 --strategy bluegreen --manual --dry-run",
        )

    golden("cli/release-midway.txt", play(story, limit=900))


def test_a_workload_without_pods_has_a_service_all_the_same(terminal):
    async def story(stage):
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"replicas": 0}}), NS)
        await asyncio.sleep(30)
        return await terminal.read(f"start deploy/echo {V2} --strategy bluegreen --dry-run")

    told = "".join(play(story))
    assert "-> 0" in told and "svc/echo" in told, told


def test_blue_green_by_its_verbs(terminal, golden):
    async def story(stage):
        return await terminal.read(
            f"start deploy/echo {V2} --strategy bluegreen --manual --preview next",
            "status deploy/echo",
            "start deploy/echo --restart",
            "pause deploy/echo",
            "resume deploy/echo",
            "promote deploy/echo",
            "rollback deploy/echo",
            "rollback deploy/echo --to r2",
            "retire deploy/echo --revision r2",
            "retire deploy/echo --revision r7",
            "retire deploy/echo",
            "status deploy/echo",
            "history deploy/echo",
        )

    golden("cli/release-bluegreen.txt", play(story, limit=900))


def test_a_canary_that_is_given_up_and_one_that_is_promoted(terminal, golden):
    async def story(stage):
        return await terminal.read(
            f"start deploy/echo {V2} --strategy canary --steps 34:promote,100",
            "status deploy/echo",
            "abort deploy/echo",
            "status deploy/echo",
            "abort deploy/echo",
            f"start deploy/echo {V2} --strategy canary --steps 34:promote,67:promote,100",
            "promote deploy/echo --full",
            "status deploy/echo",
        )

    golden("cli/release-canary.txt", play(story, limit=900))


def test_an_image_that_never_runs_halts_and_the_way_back_is_named(terminal, golden):
    async def story(stage):
        return await terminal.read(
            "start deploy/echo --image echo=nowhere/echo:v9 --progress 20s",
            "status deploy/echo",
            "list",
            "resume deploy/echo --timeout 3s",
            "abort deploy/echo",
            "status deploy/echo",
        )

    golden("cli/release-halted.txt", play(story, limit=900))


def test_who_does_not_wait_and_who_leaves_early(terminal, golden):
    async def story(stage):
        told = await terminal.read(f"start deploy/echo {V2} --no-wait", "status deploy/echo")
        told += await terminal.read("resume deploy/echo --timeout 1s", "resume deploy/echo")
        return told

    golden("cli/release-waiting.txt", play(story))


@pytest.mark.parametrize("output", ["table", "json"])
def test_the_live_view_shows_whatever_changes_until_nobody_looks(terminal, capsys, output):
    """Each screen once; and who keeps a drain is named while it goes on."""

    async def story(stage):
        await terminal.run(f"start deploy/echo {V2} --no-wait")
        capsys.readouterr()
        stage.fault("proxy-freeze", "node-2", 8)
        watching = asyncio.create_task(terminal.run(f"status deploy/echo -w -o {output}"))
        await asyncio.sleep(1)
        assert await terminal.run("resume deploy/echo") == 0
        await asyncio.sleep(2)
        assert not watching.done()
        await interrupted(watching)
        said = capsys.readouterr().out
        found = said.splitlines() if output == "json" else said.split("\n\n")
        screens = [one for one in found if not one.startswith("deploy/echo released")]  # what `resume` said
        assert len(screens) > 2 and all(one != other for one, other in itertools.pairwise(screens))
        if output == "json":
            shown = [json.loads(one) for one in screens]
            assert [shown[0]["phase"], shown[-1]["phase"]] == ["pending", "done"]
            assert any(
                "node-2: shows fence" in one
                for each in shown
                for drain in each["drains"]
                for one in drain["stragglers"]
            )
            return
        assert "nobody is at work on it" in screens[0]
        assert any("draining pod/echo-" in one and ": node-2: shows fence" in one for one in screens), said
        assert "rolling  done" in said

    play(story)


def test_ctrl_c_leaves_what_was_begun_and_gives_the_lease_back(terminal, capsys):
    async def story(stage):
        stage.fault("proxy-freeze", "node-2", 8)
        running = asyncio.create_task(terminal.run(f"start deploy/echo {V2}"))
        await asyncio.sleep(2)
        book = ConfigMapBook(stage.client, NS, "echo")
        assert (await book.read()).status.holder == "one"
        await interrupted(running)
        status = (await book.read()).status
        assert (status.holder, status.phase) == ("", "progressing")
        assert "-> 0" in await terminal.type("resume deploy/echo")

    play(story)


def test_what_ctrl_c_is_answered_with(monkeypatch):
    async def work(cluster, namespace):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_start", lambda *given: work(*given[:2]))
    monkeypatch.setattr(kubeconfig, "load", lambda *given: CLUSTER)
    said = CliRunner().invoke(command.release, shlex.split(f"start deploy/echo {V2}")).output
    assert "`tidegate release resume deploy/echo` goes on, `tidegate release abort deploy/echo` goes back" in said


def test_of_two_command_lines_at_once_the_second_follows_the_first(terminal, golden):
    async def story(stage):
        stage.fault("proxy-freeze", "node-2", 8)
        first = asyncio.create_task(terminal.run(f"start deploy/echo {V2}"))
        await asyncio.sleep(2)
        terminal.who = BOB
        terminal.capsys.readouterr()
        second = asyncio.create_task(terminal.run("resume deploy/echo"))
        assert await asyncio.gather(first, second) == [0, 0]
        said = terminal.capsys.readouterr()
        entry = await ConfigMapBook(stage.client, NS, "echo").read()
        assert entry.status.by == "ann@desk"
        return plain(said.err + said.out)

    told = play(story)
    assert told.count("deploy/echo released") == 2, told


def test_every_verb_prints_one_document(terminal, golden):
    async def story(stage):
        documents = {}
        for line in (
            f"start deploy/echo {V2} --strategy bluegreen --manual",
            "pause deploy/echo", "resume deploy/echo", "promote deploy/echo", "rollback deploy/echo",
            "retire deploy/echo", "status deploy/echo", "list", "history deploy/echo",
        ):  # fmt: skip
            assert await terminal.run(f"{line} -o json") == 0, line
            printed = json.loads(terminal.capsys.readouterr().out)
            assert printed == terminal.document, "nothing else stands on stdout"
            documents[line.partition(" ")[0]] = printed
        return documents

    documents = play(story, limit=900)
    assert len({frozenset(documents[verb]) for verb in ("start", "pause", "promote", "rollback", "status")}) == 1


READS = (
    "get,list,watch:pods,services,nodes,configmaps,endpointslices.discovery.k8s.io,replicasets.apps,deployments.apps",
    "list:horizontalpodautoscalers.autoscaling",
)
ROLLING = ("patch,create:configmaps", "patch:pods,services,replicasets.apps,deployments.apps", "delete:pods")
ASK = ("get:leases.coordination.k8s.io", "get,create:pods/proxy", "create:serviceaccounts/token")


def test_a_permission_that_is_missing_is_named_before_anything_is_written(terminal, golden):
    async def story(stage):
        told = ""
        before = await written(stage)
        for rules, line in (
            ((), "list"),
            (READS, f"start deploy/echo {V2}"),
            ((*READS, *ROLLING, *ASK), f"start deploy/echo {V2} --strategy bluegreen"),
            ((*READS, *ROLLING), f"start deploy/echo {V2}"),
        ):
            token = stage.lab.lab.register_token("ann", rules)
            vtime.hosted()["http://ann"] = stage.lab.lab.exchange_as(token)
            terminal.cluster = Cluster("http://ann", "lab", NS)
            told += await terminal.type(line)
            assert await written(stage) == before
        terminal.cluster = CLUSTER
        return told

    golden("cli/release-permissions.txt", play(story))


def test_the_same_words_where_the_cluster_knows_releases(terminal, golden):
    async def story(stage):
        await served(stage)
        told = await terminal.read(
            f"start deploy/echo {V2} --strategy bluegreen --manual",
            "promote deploy/echo",
            "list -A",
            "history deploy/echo",
            "rollback deploy/echo --to nosuch",
        )
        assert [one["metadata"]["name"] for one in (await stage.api.list(RELEASES)).items] == ["echo"]
        assert not [one for one in await written(stage) if one[1] == "tidegate-release-echo" and one[0] == "configmaps"]
        return told

    golden("cli/release-objects.txt", play(story, limit=900))


def test_an_operator_at_work_is_followed_and_does_it_all(terminal, golden):
    async def story(stage):
        await served(stage)
        hand = Hand(stage)
        await asyncio.sleep(5)
        assert await terminal.run(f"start deploy/echo {V2}") == 0
        status = (await seen(stage))["status"]
        assert status["phase"] == "done"
        told = await terminal.read("status deploy/echo", "rollback deploy/echo --no-wait")
        await asyncio.sleep(20)
        told += await terminal.read("status deploy/echo")
        await hand.leave()
        assert "operator" in json.dumps(hand.log)
        return told

    golden("cli/release-operated.txt", play(story, limit=900))


def test_what_the_shell_offers(terminal, monkeypatch):
    async def story(stage):
        assert await terminal.run(f"start deploy/echo {V2} --strategy bluegreen --keep 1s") == 0
        return await suggest._revisions(CLUSTER, "echo", NS)

    found = play(story, limit=900)
    assert found == [("r2", "echo=tidegate/echo:v2"), ("r1", "echo=tidegate/echo:v1")]
    monkeypatch.setattr(suggest, "revisions", lambda workload, given: found if workload == "echo" else [])
    offered = ShellComplete(tidegate, {}, "tidegate", "_TIDEGATE_COMPLETE")
    words = ["release", "rollback", "deploy/echo", "-n", NS]
    assert [one.value for one in offered.get_completions([*words, "--to"], "")] == ["r2", "r1"]
    assert [one.value for one in offered.get_completions([*words, "--to"], "r1")] == ["r1"]
    assert [one.value for one in offered.get_completions(["release", "retire", "deploy/echo", "--revision"], "")]
