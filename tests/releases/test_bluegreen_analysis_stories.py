"""Analyses on both sides of the flip, on a whole virtual lab: clients on every node, a Prometheus, a smoke test that
asks the workload itself, engines that die."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from judges import PROMETHEUS, SMOKE, prometheus, smoke
from scene import Mortal, play
from stage import NS
from terminal_of_releases import Terminal
from troupe import V2, V3, ask_for, at_rest, at_work, engine, requests, resting, serving

from tidegate.cli.release_view import lines
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import About, plan_release, sight_of
from tidegate.client.release.document import document
from tidegate.kube.api import DEPLOYMENTS
from tidegate.kube.client import KubeClient
from tidegate.release.spec import BlueGreen, FlipAnalysis, Spec

TRY = FlipAnalysis("smoke", "http", url=f"http://{SMOKE}:9090/", interval_seconds=1.0, when="before")
RATE = FlipAnalysis(
    "success-rate",
    "prometheus",
    url=f"http://{PROMETHEUS}:9090",
    query='rate{version="v2"}',
    success=">= 0.99",
    interval_seconds=2.0,
    when="after",
)
WAY_BACK = 3.0
"""Seconds from the answer that fails to everybody's word that blue has the traffic."""


@pytest.fixture
def terminal(capsys, monkeypatch, tmp_path):
    return Terminal(capsys, monkeypatch, tmp_path)


def spec_of(*analysis, images=V2, **fields):
    fields = {"preview": "echo-next", "keep_seconds": 0.0, **fields}
    return Spec("echo", "bluegreen", images=images, bluegreen=BlueGreen("echo", analysis=analysis, **fields))


async def counts(stage):
    found = (await stage.api.list(DEPLOYMENTS)).items
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found if one["metadata"]["namespace"] == NS}


async def uids(stage):
    return {one["metadata"]["uid"] for one in await stage.pods() if not one["metadata"].get("deletionTimestamp")}


def test_the_new_revision_is_tried_by_its_preview_and_watched_after_the_flip():
    async def story(stage):
        async with prometheus() as metrics, smoke(stage, "echo-next") as tried, requests(stage) as seen:
            async with engine(stage, spec_of(TRY, RATE)) as (made, book):
                status = await at_rest(made, book)
            await asyncio.sleep(3)
        assert tried.versions == ["v2"] * 3, "whoever asks by the preview meets the new one"
        assert len(metrics.queries) == 4, "once before, three times after the flip"
        assert (seen.lost, await serving(stage)) == ([], {"v2"}) and seen.sent > 500
        assert await counts(stage) == {"echo": 0, "echo-r2": 3}
        texts = [note.text for note in status.notes]
        rate = max(number for number, text in enumerate(texts) if "success-rate after the flip" in text)
        assert rate < next(number for number, text in enumerate(texts) if text.startswith("scale r1 to 0"))

    play(story, limit=600)


def test_what_fails_before_the_flip_never_has_the_traffic():
    async def story(stage):
        before = await uids(stage)
        async with prometheus(), smoke(stage, "echo-next", 500) as tried, requests(stage) as seen:
            async with engine(stage, spec_of(TRY, RATE)) as (made, book):
                status = await at_rest(made, book, ("aborted",))
            await asyncio.sleep(3)
        assert status.reason.startswith("http smoke failed 1 of 1 before the flip: it answered 500; r1 has all traffic")
        assert tried.versions == ["v2"]
        assert (seen.lost, seen.versions) == ([], {"v1"}), "nobody reached the new one"
        assert (await counts(stage), await uids(stage)) == ({"echo": 3}, before)

    play(story, limit=600)


def test_what_fails_after_the_flip_is_left_again_at_once_and_nothing_is_lost():
    async def story(stage):
        before = await uids(stage)
        async with prometheus() as metrics, requests(stage) as seen, engine(stage, spec_of(RATE)) as (made, book):
            metrics.value = "0.31"
            running = asyncio.create_task(at_rest(made, book, ("aborted",)))
            while len(metrics.queries) < 2:
                await asyncio.sleep(0.05)
            failed, seen.versions = stage.now, set()
            assert await serving(stage) == {"v2"}
            while not _is_back((await book.read()).status):
                assert before <= await uids(stage), "blue is whole for as long as it may be needed"
                await asyncio.sleep(0.05)
            seconds, seen.versions = stage.now - failed, set()
            status = await running
            await asyncio.sleep(1)
        assert seconds < WAY_BACK
        assert status.reason.startswith("prometheus success-rate failed 1 of 1 after the flip: 0.31 is not >= 0.99; r1")
        assert (seen.lost, seen.versions, await serving(stage)) == ([], {"v1"}, {"v1"})
        assert (await counts(stage), await uids(stage)) == ({"echo": 3}, before)

    play(story, limit=600)


def _is_back(status):
    """Whether every observer has said that blue has the traffic."""
    return status.phase in ("aborting", "aborted") and status.step >= 2


def test_a_prometheus_that_goes_away_after_the_flip_holds_blue_and_is_no_success():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of(RATE)) as (made, book):
            async with prometheus():
                running = asyncio.create_task(resting(made, book, "paused"))
                while await serving(stage) != {"v2"}:
                    await asyncio.sleep(0.05)
            status = await running
            assert "cannot be asked" in status.reason, status.reason
            assert status.reason.endswith("r2 has the traffic, r1 is kept for the way back")
            shown = "\n".join(lines(document(await sight_of(stage.client, book, About(NS, "echo")))))
            assert "  success-rate before any traffic moves: 1 passed, 0 failed: it answers\n" in shown
            assert "  success-rate after the flip: 0 passed, 0 failed, not answered 3 times: cannot be asked" in shown
            await asyncio.sleep(30)
            assert (await serving(stage), await counts(stage)) == ({"v2"}, {"echo": 3, "echo-r2": 3})
            async with prometheus():
                await ask_for(book)  # resumed
                await at_rest(made, book)
            await asyncio.sleep(2)
        assert (seen.lost, await counts(stage)) == ([], {"echo": 0, "echo-r2": 3})

    play(story, limit=600)


def test_a_prometheus_that_is_not_there_pauses_before_a_pod_is_made():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of(RATE)) as (made, book):
            status = await resting(made, book, "paused")
            assert "cannot be asked" in status.reason and status.reason.endswith("traffic stays on r1")
            assert (await counts(stage), await serving(stage)) == ({"echo": 3}, {"v1"})
        assert seen.lost == []

    play(story, limit=600)


def test_no_data_before_the_flip_holds_traffic_and_an_abort_cleans_up():
    async def story(stage):
        first = msgspec.structs.replace(RATE, when="before")
        async with prometheus() as metrics, requests(stage) as seen, engine(stage, spec_of(first)) as (made, book):
            metrics.value = None
            status = await resting(made, book, "paused")
            assert "no sample" in status.reason and status.reason.endswith("traffic stays on r1")
            assert (await serving(stage), await counts(stage)) == ({"v1"}, {"echo": 3, "echo-r2": 3})
            await ask_for(book, wish="abort")
            await at_rest(made, book, ("aborted",))
        assert (seen.lost, seen.versions, await counts(stage)) == ([], {"v1"}, {"echo": 3})

    play(story, limit=600)


def test_a_third_asked_for_while_the_second_is_watched_fails_and_the_first_has_it_again():
    async def story(stage):
        async with prometheus() as metrics, requests(stage) as seen, engine(stage, spec_of(RATE)) as (made, book):
            metrics.value = None
            await resting(made, book, "paused")
            assert await serving(stage) == {"v2"}
            await ask_for(book, images=V3)
            running = asyncio.create_task(at_rest(made, book, ("aborted",)))
            while await serving(stage) != {"v3"}:
                await asyncio.sleep(0.05)
            metrics.value = "0.1"
            await running
            await asyncio.sleep(3)
        assert (seen.lost, await serving(stage), await counts(stage)) == ([], {"v1"}, {"echo": 3})

    play(story, limit=900)


def test_the_plan_says_what_is_asked_and_on_which_side():
    async def story(stage):
        plan = await plan_release(stage.client, ConfigMapBook(stage.client, NS, "echo"), NS, spec_of(TRY, RATE))
        return [one.text for one in plan.foreseen.moments if "measure" in one.text]

    found = dict.fromkeys(play(story))
    assert list(found) == [
        "measure success-rate: prometheus success-rate before any traffic moves",
        "measure smoke: http smoke before the flip",
        "measure success-rate: prometheus success-rate after the flip",
    ]


RELEASE = """
kind: Release
spec:
  workload: echo
  strategy: STRATEGY
  images: {echo: "tidegate/echo:v2"}
  STRATEGY:
    service: echo
    STEPS
    analysis:
    - name: rate
      kind: prometheus
      url: "http://HOST:9090"
      query: q
      success: ">= 0.99"
      intervalSeconds: 2
      WHEN
"""
WORDS = {
    "bluegreen": {"STEPS": "keepSeconds: 3", "WHEN": "when: after"},
    "canary": {"STEPS": "steps: [{weight: 34}]", "WHEN": "count: 2"},
    "rainbow": {"STEPS": "retireSeconds: 1", "WHEN": "when: before"},
}


@pytest.mark.parametrize("strategy", WORDS)
@pytest.mark.parametrize(("value", "end"), [("0.999", "released"), ("0.5", "is back"), (None, "waits")])
def test_a_command_line_whose_analysis_did_not_pass_did_not_succeed(terminal, tmp_path, strategy, value, end):
    text = RELEASE.replace("STRATEGY", strategy).replace("HOST", PROMETHEUS)
    for word, line in WORDS[strategy].items():
        text = text.replace(word, line)
    path = tmp_path / "release.yaml"
    path.write_text(text, "utf-8")

    async def story(stage):
        async with prometheus() as metrics, requests(stage) as seen:
            metrics.value = value
            told = await terminal.type(f"start -f {path}")
        assert f"deploy/echo {end}: " in told and told.endswith("-> 0\n\n" if end == "released" else "-> 1\n\n"), told
        assert seen.lost == []
        shown = await terminal.type("status deploy/echo")
        assert shown.endswith("-> 0\n\n" if end == "released" else "-> 1\n\n"), shown

    play(story, limit=600)


@pytest.mark.parametrize("is_good", [True, False])
def test_an_engine_killed_after_any_write_is_followed_by_one_that_ends_the_same(is_good):
    def dies(last):
        async def story(stage):
            async with prometheus() as metrics, requests(stage, pause=0.1) as seen:
                metrics.value = "1" if is_good else "0"
                book = ConfigMapBook(stage.client, NS, "echo")
                await book.begin(spec_of(RATE))
                is_over = await _lived(stage, Mortal(stage.lab.lab.exchange, last), is_good)
                async with at_work(stage, "echo", "heir") as heir:
                    status = await at_rest(heir, book, ("done" if is_good else "aborted",))
                await asyncio.sleep(3)
            wanted = ({"v2"}, {"echo": 0, "echo-r2": 3}) if is_good else ({"v1"}, {"echo": 3})
            assert (await serving(stage), await counts(stage)) == wanted, (last, status.reason)
            assert seen.lost == [], last
            return is_over

        return play(story, limit=900)

    last = 1
    while not dies(last):
        last += 1
    assert last > 15


async def _killed():
    """The end of a process that has none."""


async def _lived(stage, way, is_good):
    """An engine until it is at its end, or killed. Whether it came to its end."""
    async with at_work(stage, "echo", "doomed", client=KubeClient(way, "lab")) as made:
        made.leave = _killed
        running = asyncio.create_task(made.run(120))
        dying = asyncio.create_task(way.died.wait())
        await asyncio.wait({running, dying}, return_when=asyncio.FIRST_COMPLETED)
        is_over = not way.died.is_set()
        for task in (running, dying):
            task.cancel()
        await asyncio.gather(running, dying, return_exceptions=True)
    return is_over
