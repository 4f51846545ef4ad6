"""A release while the API server is in trouble (`lab fault api-errors`), from before it is asked for until midway."""

from __future__ import annotations

import asyncio
import json

import pytest
from operator_stage import Hand, release, served, until
from stage import deployment, play
from terminal_of_releases import CLUSTER, Terminal
from troupe import requests, serving

from tidegate import vtime
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import begin_release, plan_release
from tidegate.kube.api import CONFIGMAPS, PODS, RELEASES, Selection
from tidegate.kube.connect import open_cluster
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.kube.patience import Patience
from tidegate.lab.faults import Fault
from tidegate.release.spec import Spec

IMAGES = {"echo": "tidegate/echo:v2"}
V2 = "--image echo=tidegate/echo:v2 --yes"
WORDS = {
    "rolling": "",
    "bluegreen": "--strategy bluegreen --service echo --keep 3s",
    "canary": "--strategy canary --service echo --steps 50:2s,100",
    "rainbow": "--strategy rainbow --service echo",
}


@pytest.fixture
def terminal(capsys, monkeypatch, tmp_path):
    return Terminal(capsys, monkeypatch, tmp_path)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strategy", WORDS)
def test_a_release_is_asked_for_and_carried_to_its_end_and_nothing_is_lost(terminal, strategy, seed):
    async def story(stage):
        async with requests(stage) as seen:
            stage.lab.lab.faults.apply(Fault("api-errors", "", 15.0, 0.5))
            told = await terminal.type(f"start deploy/echo {V2} {WORDS[strategy]}")
            assert told.endswith("-> 0\n\n"), told
            assert await serving(stage) == {"v2"}
            # Again, over the release that is written already, and asked back in between.
            stage.lab.lab.faults.apply(Fault("api-errors", "", 15.0, 0.5))
            to = " --to r1" if strategy == "rainbow" else ""
            told = await terminal.type(f"rollback deploy/echo --yes{to}")
            assert told.endswith("-> 0\n\n"), told
            assert await serving(stage) == {"v1"}
        assert seen.lost == [] and seen.sent > 100

    play(story, deployment(replicas=2), seed=seed, limit=900)


SECTIONS = {
    "rolling": {},
    "bluegreen": {"bluegreen": {"service": "echo", "keepSeconds": 3}},
    "canary": {"canary": {"service": "echo", "steps": [{"weight": 50, "pauseSeconds": 2}]}},
    "rainbow": {"rainbow": {"service": "echo", "idleSeconds": 2, "retireSeconds": 3}},
}


@pytest.mark.parametrize("strategy", SECTIONS)
def test_an_operator_carries_it_to_its_end_and_nothing_is_lost(strategy):
    async def story(stage):
        await served(stage)
        async with requests(stage) as seen:
            hand = Hand(stage)
            stage.lab.lab.faults.apply(Fault("api-errors", "", 15.0, 0.5))
            await stage.api.create(RELEASES, release(strategy=strategy, images=IMAGES, **SECTIONS[strategy]))
            await asyncio.sleep(15.0)
            await until(stage, "done")
            assert await serving(stage) == {"v2"}
            assert "a bug" not in "".join(hand.lines)
            await hand.leave()
        assert seen.lost == [] and seen.sent > 100

    play(story, deployment(replicas=2), limit=900)


def test_a_server_that_answers_errors_alone_is_told_as_it_answers(terminal):
    async def story(stage):
        stage.lab.lab.faults.apply(Fault("api-errors", "", 3600.0, 1.0))
        began = stage.now
        told = await terminal.type(f"start deploy/echo {V2}")
        assert told.endswith("-> 1\n\n") and "error: the API server answers " in told
        assert "for 8 s at most" in told
        assert 4 < stage.now - began < 12

    play(story, deployment(replicas=1))


class Fickle:
    """A book whose writes fail as ``errors`` have it, in turn: (code, whether it is carried out all the same)."""

    def __init__(self, book, *errors):
        self.book, self.errors = book, list(errors)

    async def read(self):
        return await self.book.read()

    async def _write(self, write):
        code, is_done = self.errors.pop(0) if self.errors else (0, True)
        found = await write() if is_done else None
        if code:
            raise ApiError(code, "Conflict" if code == 409 else "", "weather")
        return found

    async def ask(self, entry, spec):
        return await self._write(lambda: self.book.ask(entry, spec))

    async def begin(self, spec, status=None):
        return await self._write(lambda: self.book.begin(spec, status))


@pytest.mark.parametrize(
    "errors", [((500, False),), ((500, True),), ((500, True), (500, True)), ((409, False), (500, False), (500, True))]
)
def test_what_is_asked_for_is_written_once_whatever_the_answer_says(errors):
    async def story(stage):
        book = ConfigMapBook(stage.client, "demo", "echo")
        spec = Spec("echo", images={"echo": "tidegate/echo:v2"})
        plan = await plan_release(stage.client, book, "demo", spec)
        first = await begin_release(Fickle(book, *errors), plan)
        assert first.generation == 1
        spec = Spec("echo", images={"echo": "tidegate/echo:v3"})
        second = await begin_release(Fickle(book, *errors), await plan_release(stage.client, book, "demo", spec))
        assert (second.generation, second.spec.images) == (2, {"echo": "tidegate/echo:v3"})

    play(story, deployment(replicas=1))


def test_what_somebody_else_asked_for_meanwhile_is_not_written_over():
    async def story(stage):
        book = ConfigMapBook(stage.client, "demo", "echo")
        spec = Spec("echo", images={"echo": "tidegate/echo:v2"})
        plan = await plan_release(stage.client, book, "demo", spec)

        class Late(Fickle):
            async def begin(self, spec, status=None):
                await self.book.begin(Spec("echo", images={"echo": "tidegate/echo:v9"}))
                return await self.book.begin(spec)

        with pytest.raises(ApiError):
            await begin_release(Late(book), plan)
        assert (await book.read()).spec.images == {"echo": "tidegate/echo:v9"}

    play(story, deployment(replicas=1))


def test_patience_is_with_reads_and_with_what_was_not_begun():
    """An answer of 500 to a write may come after it was carried out: whoever reads again knows."""

    async def story(stage):
        asked, answers = [], []
        exchange = stage.lab.lab.exchange

        async def counted(request):
            asked.append(request.method)
            response = await exchange(request)
            answers.append(response.status)
            return response

        vtime.hosted()[CLUSTER.server] = counted
        stage.lab.lab.faults.apply(Fault("api-errors", "", 3600.0, 0.5))
        async with open_cluster(CLUSTER, patience=Patience()) as client:
            for _ in range(20):
                assert (await client.list(PODS, Selection("demo"))).items
        assert set(answers) == {200, 429, 500, 503}
        async with open_cluster(CLUSTER, patience=Patience()) as client:
            for number in range(20):
                del asked[:], answers[:]
                made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{number}"}}
                body = Request("POST", CONFIGMAPS.path("demo"), (), {}, json.dumps(made).encode())
                await client.exchange(body)
                assert set(answers[:-1]) <= {429}

    play(story, deployment(replicas=1))
