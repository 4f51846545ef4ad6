"""What every strategy has to live through, told by each of them with clients on every node: nothing is lost."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from scene import failing, play
from stage import NS, deployment
from test_killed_midway import mortals
from troupe import BAD, SPECS, V2, V3, ask_for, at_rest, at_work, engine, requests, serving

from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import before
from tidegate.kube.api import CONFIGMAPS, DEPLOYMENTS, PODS, Deletion, Patch
from tidegate.kube.client import KubeClient
from tidegate.release.strategies import STRATEGIES

NAMES = sorted(STRATEGIES)
LIMIT = 1500
WORSE = {"echo": "nowhere/echo:worse"}


def told(strategy, story, **options):
    """Play with clients, and no request lost; ``story(stage, made, book)``."""

    async def whole(stage):
        async with requests(stage) as seen, engine(stage, SPECS[strategy], **options) as (made, book):
            await story(stage, made, book)
            await asyncio.sleep(3)
        assert seen.lost == []
        assert seen.sent > 100

    play(whole, limit=LIMIT)


@pytest.mark.parametrize("strategy", NAMES)
def test_good_to_good(strategy):
    async def story(stage, made, book):
        await at_rest(made, book)
        assert await serving(stage) == {"v2"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
def test_good_to_bad_halts_and_an_abort_goes_back(strategy):
    async def story(stage, made, book):
        await ask_for(book, images=BAD)
        await at_rest(made, book, ("halted",))
        assert await serving(stage) == {"v1"}
        await ask_for(book, wish="abort")
        await at_rest(made, book, ("aborted",))
        assert await serving(stage) == {"v1"}
        await ask_for(book, wish="", images=V2)
        await at_rest(made, book)
        assert await serving(stage) == {"v2"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
def test_after_a_bad_revision_a_third_is_released_without_an_abort_between(strategy):
    """openkruise/rollouts #257, kruise-tools #80: stuck where it had stopped (peers S34)."""

    async def story(stage, made, book):
        await ask_for(book, images=BAD)
        await at_rest(made, book, ("halted",))
        await ask_for(book, images=V3)
        await at_rest(made, book)
        assert await serving(stage) == {"v3"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
def test_bad_to_bad_halts_and_bad_to_good_serves(strategy):
    """What serves nobody has nobody to lose and must not hold what would serve (peers S26)."""

    async def story(stage):
        async with engine(stage, msgspec.structs.replace(SPECS[strategy], images=WORSE)) as (made, book):
            status = await at_rest(made, book, ("halted",))
            assert "worse" in status.reason or "progress" in status.reason, status.reason
            assert await serving(stage) == set()
            await ask_for(book, images=V2)
            await at_rest(made, book)
            assert await serving(stage) == {"v2"}
            await asyncio.sleep(5)
            async with requests(stage) as seen:
                await asyncio.sleep(10)
        assert (seen.lost, seen.versions) == ([], {"v2"})

    bad = deployment()
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = "nowhere/echo:v9"
    play(story, bad, limit=LIMIT, comes_up=False)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("after", [1.0, 4.0])
def test_paused_for_longer_than_progress_may_take_it_goes_on_where_it_was(strategy, after):
    """argo-rollouts #3414: a pause that counts against the deadline (peers S30, S36)."""

    async def story(stage, made, book):
        await made.run(after)
        await ask_for(book, paused=True)
        await made.run(90.0)
        status = (await book.read()).status
        assert status.phase in ("paused", "done"), status.reason
        await ask_for(book, paused=False)
        seen = []
        made.heard = lambda turn: seen.append(turn.decision.status.phase)
        await at_rest(made, book)
        assert await serving(stage) == {"v2"} and "halted" not in seen

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("after", [1.0, 4.0, 9.0])
def test_a_paused_release_can_be_aborted(strategy, after):
    """kruise-tools #84: "cannot rollback a paused deployment"; kubevela #7170: a deadlock at a paused step."""

    async def story(stage, made, book):
        await made.run(after)
        await ask_for(book, paused=True)
        await made.run(10.0)
        status = (await book.read()).status
        if strategy == "rainbow" and status.stable == status.revision:
            return  # it has all new traffic: the verb names `rollback` instead
        await ask_for(book, wish="abort")
        await at_rest(made, book, ("aborted",))
        assert await serving(stage) == {"v1"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("after", [1.0, 4.0, 9.0])
def test_what_it_remembers_may_be_deleted_midway(strategy, after):
    """openkruise/rollouts #113: stuck without a memory. What stands tells the next one where to go on."""

    async def story(stage, made, book):
        await made.run(after)
        await made.leave()
        await stage.api.delete(CONFIGMAPS, "tidegate-release-echo", NS, Deletion())
        async with engine(stage, SPECS[strategy], holder="engine-2") as (other, again):
            await at_rest(other, again)
        assert await serving(stage) == {"v2"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
def test_another_image_and_another_number_asked_for_at_once(strategy):
    """(peers S36)"""

    async def story(stage, made, book):
        await made.run(3.0)
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"replicas": 5}}), NS)
        await ask_for(book, images=V3)
        await at_rest(made, book)
        assert await serving(stage) == {"v3"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
def test_a_restart_is_of_the_revision_that_serves_also_once_the_one_before_it_is_gone(strategy):
    """The user's own Deployment is another template by then: what was asked for must not turn into that."""

    async def story(stage, made, book):
        await at_rest(made, book)
        await ask_for(book, images={}, restart="again")
        found = await at_rest(made, book)
        await asyncio.sleep(90)
        await made.run(60)
        status = await at_rest(made, book)
        assert (status.revision, status.round) == (found.revision, found.round)
        assert await serving(stage) == {"v2"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("after", [1.0, 4.0, 9.0])
def test_what_served_is_asked_for_again_midway(strategy, after):
    async def story(stage, made, book):
        await made.run(after)
        await ask_for(book, images={"echo": "tidegate/echo:v1"})
        await at_rest(made, book)
        assert await serving(stage) == {"v1"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("after", [0.0, 1.0, 4.0])
def test_an_abort_is_thought_better_of_while_it_is_on_its_way(strategy, after):
    async def story(stage, made, book):
        await made.run(4.0)
        if (await book.read()).status.stable == (await book.read()).status.revision:
            return  # rainbow: the others only drain, there is nothing to abort
        await ask_for(book, wish="abort")
        await made.run(after)
        await ask_for(book, wish="")
        await at_rest(made, book)
        assert await serving(stage) == {"v2"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
def test_a_rollback_of_what_is_done(strategy):
    async def story(stage, made, book):
        await ask_for(book, rollback_to=before(await at_rest(made, book)))
        await at_rest(made, book)
        assert await serving(stage) == {"v1"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("after", [1.0, 4.0, 9.0])
def test_a_third_revision_midway(strategy, after):
    async def story(stage, made, book):
        await made.run(after)
        await ask_for(book, images=V3)
        await at_rest(made, book)
        assert await serving(stage) == {"v3"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("replicas", [2, 6])
def test_scaled_midway(strategy, replicas):
    async def story(stage, made, book):
        await made.run(3.0)
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"replicas": replicas}}), NS)
        await at_rest(made, book)
        assert await serving(stage) == {"v2"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
def test_a_node_drained_midway(strategy):
    async def story(stage, made, book):
        await made.run(3.0)
        running = asyncio.create_task(evict(stage, "node-2"))
        await at_rest(made, book)
        await running
        assert await serving(stage) == {"v2"}

    told(strategy, story)


async def evict(stage, node):
    """As ``kubectl drain`` does it: cordoned, then each pod evicted."""
    from tidegate.kube.api import NODES

    await stage.api.patch(NODES, node, Patch({"spec": {"unschedulable": True}}))
    for pod in await stage.pods():
        if pod["spec"].get("nodeName") == node:
            name = pod["metadata"]["name"]
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NS}}
            await stage.api.create(PODS, body, NS, subresource="eviction")


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize(("code", "reason"), [(429, "TooManyRequests"), (409, "Conflict"), (500, "InternalError")])
def test_an_api_that_answers_with_errors_for_a_while(strategy, code, reason):
    async def story(stage, made, book):
        answer = failing(code, reason)
        exchange = stage.lab.lab.exchange
        until = stage.now + 20

        async def stormy(request):
            if stage.now < until and stage.now % 2 < 1.2 and request.method != "GET":
                await answer(request)
            return await exchange(request)

        client = KubeClient(stormy, "lab")
        async with at_work(stage, "echo", "engine-2", client=client) as other:
            await at_rest(other, ConfigMapBook(client, NS, "echo"))
        assert await serving(stage) == {"v2"}

    told(strategy, story)


@pytest.mark.parametrize("strategy", NAMES)
def test_an_engine_killed_after_any_write_is_taken_over(strategy):
    async def whole(stage):
        async with requests(stage) as seen:
            book = ConfigMapBook(stage.client, NS, "echo")
            await book.begin(SPECS[strategy])
            assert await mortals(stage, book, [2 + number % 3 for number in range(1, 80)]) > 0, "it was never killed"
            assert await serving(stage) == {"v2"}
            await asyncio.sleep(3)
        assert seen.lost == []

    play(whole, limit=LIMIT)


@pytest.mark.parametrize("strategy", NAMES)
def test_of_two_engines_one_acts(strategy):
    async def story(stage, made, book):
        from tidegate.client.options import Identity
        from tidegate.client.release.ground import Ground
        from tidegate.client.release.run import Engine, HeldByOther

        other = Engine(book, Ground(stage.client, Identity("bob@desk", "other"), seed=2))
        await made.turn()
        with pytest.raises(HeldByOther):
            await other.turn()
        await at_rest(made, book)
        assert await serving(stage) == {"v2"}

    told(strategy, story)
