"""An agent's ports while ten thousand callers do their worst: bounded, told in a few lines, and the coordinator is
answered all the while. ``-s`` shows the figures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.agent import flooded, flooder

from tidegate import vtime
from tidegate.agent.issuer import write_leaf
from tidegate.kube import certificates, wire
from tidegate.kube.crowd import DEFAULT_LIMITS
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.kube.tls import Credentials, unverified_client
from tidegate.model.endpoint import Endpoint
from tidegate.observers import witness
from tidegate.observers.asking import AGENT_NAME, COORDINATOR_NAME, TOKEN_HEADER

pytestmark = pytest.mark.realtime
HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
BUDGET_SECONDS = {"coordinator": 2.0, "command line": 5.0}
"""How long they wait at most (``canvass.ANSWER_SECONDS``; half of ``kube.client.CALL_SECONDS``)."""
RSS_MIB_MAX = 48
"""More than before the flood. An agent's budget is 64 MiB in all."""
QUESTION = witness.encode_question(witness.Question((Endpoint("10.0.0.1", 80),), "", 0.0))


@dataclass
class Agent:
    """The process under fire, and what it said."""

    process: subprocess.Popen
    peers: int
    ask: int
    coordinator: Credentials
    log: Path
    began: float = field(default_factory=time.monotonic)
    latencies: dict[str, list[float]] = field(default_factory=lambda: {"coordinator": [], "command line": []})
    peak: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def measure(self):
        """(RSS in MiB, descriptors)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        rss = int(status.split("VmRSS:")[1].split()[0]) / 1024
        now = (rss, len(os.listdir(f"/proc/{self.process.pid}/fd")))
        self.peak = [max(one) for one in zip(self.peak, now, strict=True)]
        return now

    async def behave(self):
        """What has to be answered: a coordinator's question and a command line's, four times a second each."""
        tls, unverified = self.coordinator.client(), unverified_client()
        asked = Request("POST", witness.QUESTION_PATH, (), {"content-type": "application/json"}, QUESTION)
        about = Request("GET", witness.ABOUT_PATH, (), {TOKEN_HEADER: "good"})
        while True:
            for who, peer, request in (
                ("coordinator", wire.Peer(HOST, self.peers, "", BUDGET_SECONDS["coordinator"], tls, AGENT_NAME), asked),
                ("command line", wire.Peer(HOST, self.ask, "", BUDGET_SECONDS["command line"], unverified), about),
            ):
                began = time.monotonic()
                try:
                    status, _, body = await wire.fetch(peer, request)
                except Unreachable as error:
                    raise AssertionError(f"{who}: {error}, {time.monotonic() - self.began:.1f} s in") from error
                assert status == 200, (who, status, body)
                self.latencies[who].append(time.monotonic() - began)
                self.measure()
            await asyncio.sleep(0.25)


@contextlib.contextmanager
def agent(folder):
    authority = certificates.make_authority("main", vtime.now())
    write_leaf(folder / "agent", authority, AGENT_NAME, vtime.now())
    write_leaf(folder / "coordinator", authority, COORDINATOR_NAME, vtime.now())
    log = folder / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", flooded.__name__, str(folder / "agent")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=ROOT)
    try:
        while not (told := log.read_text()).endswith("\n"):
            assert process.poll() is None, told
            time.sleep(0.02)  # realtime: a real process boots
        peers, ask = map(int, told.split()[1:3])
        yield Agent(process, peers, ask, Credentials(str(folder / "coordinator")), log)
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()


async def test_ten_thousand_callers_are_borne_and_the_coordinator_is_answered(tmp_path):
    with agent(tmp_path) as one:
        behaving = asyncio.create_task(one.behave())
        await asyncio.sleep(0.6)
        before = one.measure()
        command = [sys.executable, "-m", flooder.__name__, str(one.peers), str(one.ask)]
        flooding = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            told, _ = await asyncio.wait_for(flooding.communicate(), 120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                flooding.kill()
        await asyncio.sleep(0.6)
        if behaving.done():
            behaving.result()
        behaving.cancel()
        await asyncio.sleep(DEFAULT_LIMITS.request_seconds + 0.5)  # realtime: what is left runs out
        after = one.measure()
        lines = one.log.read_text().splitlines()[1:]
    print("\ncallers and seconds:", told.decode().strip())
    print(f"RSS before {before[0]:.1f}, peak {one.peak[0]:.1f}, after {after[0]:.1f} MiB")
    print(f"descriptors before {before[1]}, peak {one.peak[1]:.0f}, after {after[1]}")
    for who, found in one.latencies.items():
        print(f"{who}: {len(found)} answers, median {sorted(found)[len(found) // 2]:.3f} s, worst {max(found):.3f} s")
    print("\n".join(lines))
    assert set(json.loads(told)) == set(flooder.FORGED)
    limits = DEFAULT_LIMITS
    assert one.peak[1] <= before[1] + 2 * limits.strangers_max + wire.ACCEPTED_AT_ONCE
    assert after[1] <= before[1] + 4
    assert one.peak[0] - before[0] < RSS_MIB_MAX
    assert len(lines) < 30, "a flood is a few lines"
    assert "to make room" in " ".join(lines)
    assert not [line for line in lines if "Traceback" in line or "good" in line or "forged" in line]


async def test_replayed_long_polls_of_one_who_may_ask_leave_room_for_the_next(tmp_path):
    body = witness.encode_question(witness.Question((Endpoint("10.0.0.1", 80),), "", 1.0))
    with agent(tmp_path) as one:
        tls = one.coordinator.client()
        peer = wire.Peer(HOST, one.peers, "", 5.0, tls, AGENT_NAME)
        asked = Request("POST", witness.QUESTION_PATH, (), {"content-type": "application/json"}, body)
        digest = witness.decode_answer((await wire.fetch(peer, asked))[2], flooded.NODE).digest
        again = witness.encode_question(witness.Question((Endpoint("10.0.0.1", 80),), digest, 1.0))
        asked = Request("POST", witness.QUESTION_PATH, (), {"content-type": "application/json"}, again)
        told = await asyncio.gather(*(wire.fetch(peer, asked) for _ in range(200)), return_exceptions=True)
        statuses = [one[0] if isinstance(one, tuple) else 0 for one in told]
        assert statuses.count(200) >= 32 and set(statuses) <= {0, 200, 429}, statuses  # 0: it made room for the next
        assert (await wire.fetch(peer, asked))[0] == 200


@pytest.mark.parametrize("name", ["../../secrets/x", "a/b", "..", "", "x" * 300, "A B", "x?y=z"])
async def test_a_forged_pods_name_reaches_no_api_server(tmp_path, name):
    with agent(tmp_path) as one:
        peer = wire.Peer(HOST, one.ask, "", 5.0, unverified_client())
        query = (("namespace", "demo"), ("pod", name))
        status, _, body = await wire.fetch(peer, Request("GET", "/v1/activity", query, {TOKEN_HEADER: "good"}))
        assert status == 400 and b"is no name" in body
        query = (("namespace", name), ("pod", "web"))
        assert (await wire.fetch(peer, Request("GET", "/v1/activity", query, {TOKEN_HEADER: "good"})))[0] == 400
    assert "api asked" not in one.log.read_text()


async def test_the_port_for_peers_hears_nobody_without_a_certificate(tmp_path):
    with agent(tmp_path) as one:
        for tls in (None, unverified_client()):
            with pytest.raises(Unreachable):
                await wire.fetch(wire.Peer(HOST, one.peers, "", 3.0, tls), Request("GET", "/healthz"))
