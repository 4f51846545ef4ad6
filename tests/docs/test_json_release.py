"""docs/json.md lists every key of releases: held against what their verbs print, in virtual time."""

from __future__ import annotations

from stage import NS, deployment, play
from test_json import assert_as_listed

from tidegate.cli.release_book import releases
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import (
    About,
    ReleaseOptions,
    ask_release,
    begin_release,
    carry_on,
    changed,
    plan_release,
    sight_of,
)
from tidegate.client.release.document import document, history, plan_document, summary
from tidegate.kube import wire
from tidegate.kube.exchange import whole
from tidegate.release.spec import BlueGreen, FlipAnalysis, Spec

ABOUT = About(NS, "echo")
IMAGES = {"echo": "tidegate/echo:v2"}
SMOKE = FlipAnalysis("smoke", "http", url="http://127.16.0.200:9090/", count=1, when="before")
MANUAL = Spec(
    "echo", "bluegreen", images=IMAGES, bluegreen=BlueGreen(service="echo", promote="manual", analysis=(SMOKE,))
)


async def fine(request):
    return whole(200, b"")


def test_the_keys_of_a_release_are_those_of_the_page():
    async def story(stage):
        book = ConfigMapBook(stage.client, NS, "echo")
        plans = [await plan_release(stage.client, book, NS, MANUAL)]
        plans.append(await plan_release(stage.client, book, NS, Spec("nosuch", images=IMAGES)))
        await begin_release(book, plans[0])
        shown = [document(await sight_of(stage.client, book, ABOUT))]
        options = ReleaseOptions(seed=1)

        async def carried(seconds=float("inf")):
            await carry_on(stage.client, book, ABOUT, ReleaseOptions(seed=1, timeout_seconds=seconds))
            shown.append(document(await sight_of(stage.client, book, ABOUT)))

        async with wire.serving(fine, "127.16.0.200", 9090):
            await carried()
        await ask_release(book, ABOUT, lambda found: changed(found, "promote"))
        stage.fault("proxy-freeze", "node-1", 8)
        await carried(3)
        await carried()
        await ask_release(book, ABOUT, lambda found: changed(found, "retire"))
        await carried(1)
        entry = await carry_on(stage.client, book, ABOUT, options)
        listed = {"items": [summary(one) for one in await releases(stage.client, "")]}
        return [plan_document(one) for one in plans], shown, listed, {"items": history(entry)}

    plans, shown, listed, past = play(story, deployment(gate=False), limit=900)
    shown.append({
        "revisions": [{"weight": 25, "unknown": ["echo-1"]}], "problems": ["x"], "unverified": ["x"],
        "questions": [{"assumed": ["x"]}], "drains": [{"stragglers": ["x"], "waiting": ["x"]}],
    })  # fmt: skip
    assert_as_listed("release", *shown)
    assert_as_listed("release start --dry-run", *plans)
    assert_as_listed("release list", listed)
    assert_as_listed("release history", past)
