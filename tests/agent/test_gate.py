"""The agent's end of a hold: what is recorded when somebody on the way is gone."""

from __future__ import annotations

import asyncio
import json

import pytest

from tidegate import vtime
from tidegate.agent.gate import ASK_SECONDS, CONFIRM_SECONDS, Gate
from tidegate.agent.holds import HeldPod, Holds
from tidegate.agent.journals import SLOTS, Journals, NoSlot
from tidegate.model.names import DrainResult, Ending

POD = HeldPod("uid-1", "demo", "echo-1")
VERIFIED = DrainResult(Ending.VERIFIED)


class Drains:
    """Drains every pod in ``seconds``."""

    def __init__(self, seconds=2.0, error=None):
        self.seconds, self.error, self.lost, self.at_once = seconds, error, [], None

    async def identify(self, ip, token=""):
        return self.at_once or POD

    async def drain(self, pod, container):
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return VERIFIED

    def abandoned(self, pod, container, why):
        self.lost.append((container, why))


def play(story, drains, tmp_path):
    async def whole():
        holds = Holds(Journals(str(tmp_path)))
        gate = Gate(drains, holds, lambda line: None)
        await asyncio.start_unix_server(gate.serve, "agent.sock")
        reader, writer = await asyncio.open_unix_connection("agent.sock")
        writer.write(b'{"hold": {"ip": "127.17.1.2", "port": 15299, "container": "web"}}\n')
        await story(reader, writer)
        await asyncio.sleep(5)
        return [entry for entry in holds.journal.entries() if entry["event"] == "hold-ended"]

    return vtime.run(whole(), limit_seconds=60)


async def released(reader):
    """The release, after heartbeats: (it, how many heartbeats)."""
    beats = 0
    while "heartbeat" in (message := json.loads(await reader.readline())):
        beats += 1
    return message["release"], beats


def test_a_confirmed_release_is_journalled_as_what_it_was(tmp_path):
    async def story(reader, writer):
        release, beats = await released(reader)
        assert (release["result"], beats) == ("verified", 3)
        writer.write(b'{"answered": 1}\n')

    [ended] = play(story, Drains(2.5), tmp_path)
    assert ended["result"] == "verified"


@pytest.mark.parametrize("confirmation", [b"", b'{"answered": 0}\n', b"garbage\n"])
def test_a_release_that_reached_nobody_is_bypassed(tmp_path, confirmation):
    drains = Drains()

    async def story(reader, writer):
        await released(reader)
        writer.write(confirmation)
        writer.close()

    [ended] = play(story, drains, tmp_path)
    assert ended["result"] == "bypassed"
    assert [container for container, _ in drains.lost] == ["web"]


def test_a_holder_that_is_silent_after_the_release_is_bypassed(tmp_path):
    async def story(reader, writer):
        await released(reader)
        await asyncio.sleep(CONFIRM_SECONDS)

    [ended] = play(story, Drains(), tmp_path)
    assert ended["result"] == "bypassed"


def test_a_holder_that_dies_ends_the_hold_at_once(tmp_path):
    drains = Drains(30)

    async def story(reader, writer):
        await asyncio.sleep(1)
        writer.close()

    [ended] = play(story, drains, tmp_path)
    assert ended["result"] == "bypassed"
    assert "holder" in ended["reason"]


def test_a_bug_in_a_drain_is_bypassed_and_the_holder_falls_back(tmp_path):
    async def story(reader, writer):
        lines = (await reader.read()).splitlines()
        assert not any(b"release" in line for line in lines)

    [ended] = play(story, Drains(error=RuntimeError("oops")), tmp_path)
    assert ended["result"] == "bypassed"
    assert "oops" in ended["reason"]


def test_a_call_that_is_not_for_a_leaving_pod_is_answered_at_once(tmp_path):
    drains = Drains()
    drains.at_once = DrainResult(Ending.BYPASSED, "no deletionTimestamp")

    async def story(reader, writer):
        assert (await released(reader))[0]["result"] == "bypassed"
        assert asyncio.get_running_loop().time() < 0.1
        writer.write(b'{"answered": 1}\n')

    assert play(story, drains, tmp_path) == []


def test_garbage_on_the_socket_is_dropped(tmp_path):
    async def whole():
        gate = Gate(Drains(), Holds(Journals("")), lambda line: None)
        await asyncio.start_unix_server(gate.serve, "agent.sock", limit=4096)
        for line in (b"\x00\n", b"{}\n", b'{"hold": 7}\n', b"x" * 10_000 + b"\n", b""):
            _, writer = await asyncio.open_unix_connection("agent.sock")
            writer.write(line)
            await asyncio.sleep(ASK_SECONDS + 1)
            assert gate.open == 0
            writer.close()

    vtime.run(whole(), limit_seconds=60)


def test_the_result_of_a_pod_is_the_worst_of_its_containers_last_holds():
    holds = Holds(Journals(""))
    holds.began(POD, "web")
    holds.ended(POD, "web", DrainResult(Ending.BYPASSED, "died"))
    assert holds.result_of("uid-1", VERIFIED, {"side"}).result is Ending.BYPASSED
    holds.began(POD, "web")  # asked again: it was still running
    assert holds.result_of("uid-1", VERIFIED, {"web", "side"}).result is Ending.VERIFIED


def begun(folder):
    """An agent's holds; and its end, however it comes."""
    journals = Journals(str(folder))
    return Holds(journals), journals.close


def test_holds_of_an_agent_that_died_are_restored_as_bypassed(tmp_path):
    before, end = begun(tmp_path)
    before.began(POD, "web")
    before.began(POD, "side")
    before.ended(POD, "side", VERIFIED)
    end()
    after, end = begun(tmp_path)
    [dead] = after.restore()
    assert (dead.pod, dead.container) == (POD, "web")
    assert after.result_of("uid-1", VERIFIED, {"side"}).result is Ending.BYPASSED
    end()
    assert begun(tmp_path)[0].restore() == [], "once is enough"


def test_a_journal_cut_short_by_a_kill_is_read_up_to_there_and_written_on(tmp_path):
    before, end = begun(tmp_path)
    before.began(POD, "web")
    end()
    path = tmp_path / "holds.jsonl"
    path.write_bytes(path.read_bytes() + b'{"event": "hold-en')
    after, end = begun(tmp_path)
    assert len(after.restore()) == 1
    end()
    assert begun(tmp_path)[0].restore() == []


def test_an_agent_that_lives_beside_us_is_not_taken_for_dead_until_it_is(tmp_path):
    before, end = begun(tmp_path)
    before.began(POD, "web")
    after, _ = begun(tmp_path)
    assert after.restore() == after.bury() == []
    third, _ = begun(tmp_path)
    assert third.restore() == []
    end()
    [dead] = after.bury()
    assert (dead.pod, dead.container) == (POD, "web")
    assert after.bury() == third.bury() == [], "told once, by one of them"
    assert after.result_of("uid-1", VERIFIED, {"side"}).result is Ending.BYPASSED


def test_the_result_of_a_pod_that_two_agents_held_is_the_worst_of_both(tmp_path):
    before, _ = begun(tmp_path)
    after, _ = begun(tmp_path)
    before.began(POD, "web")
    after.began(POD, "side")
    before.ended(POD, "web", DrainResult(Ending.TIMED_OUT, "deadline"))
    assert after.result_of("uid-1", VERIFIED, {"side"}).result is Ending.TIMED_OUT
    after.began(POD, "web")  # asked again, and of us: what the other one said no longer counts
    assert after.result_of("uid-1", VERIFIED, {"side", "web"}).result is Ending.VERIFIED
    after.ended(POD, "web", VERIFIED)
    assert after.result_of("uid-1", VERIFIED, {"side"}).result is Ending.VERIFIED


def test_there_is_an_end_to_agents_of_one_node(tmp_path):
    kept = [begun(tmp_path) for _ in range(SLOTS)]
    with pytest.raises(NoSlot):
        begun(tmp_path)
    kept[3][1]()
    begun(tmp_path)
