"""The holder keeps the kubelet waiting for exactly as long as it should, whatever the agent does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from tidegate import vtime
from tidegate.agent import holder

GATE = ("127.0.0.1", 15299)
ENV = {"TIDEGATE_AGENT_SOCKET": "agent.sock", "TIDEGATE_ORIGINAL_DESTINATION": "proxy"}


def started(env=ENV):
    return vtime.Process(holder.main, vtime.Program(env=env), "holder")


async def ask(container="web", ip="127.17.1.2", line=None):
    """One preStop call as the lab's kubelet makes it: (status line, seconds until answered)."""
    began = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection(*GATE)
    writer.write(line or f"PROXY TCP4 127.16.0.11 {ip} 40000 15299\r\n".encode())
    writer.write(f"GET /gate/{container} HTTP/1.1\r\nHost: {ip}:15299\r\nUser-Agent: kube-lifecycle\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n")[0], asyncio.get_running_loop().time() - began


class Agent:
    """A scripted agent on the UNIX socket: heartbeats, then releases after ``release_after`` seconds."""

    def __init__(self, release_after=1.2, mute_after=None, garbage=False):
        self.release_after, self.mute_after, self.garbage = release_after, mute_after, garbage
        self.asked, self.answered = [], []

    async def main(self, program):
        server = await asyncio.start_unix_server(self.serve, "agent.sock")
        await server.serve_forever()

    async def serve(self, reader, writer):
        self.asked.append(json.loads(await reader.readline())["hold"])
        if self.garbage:
            writer.write(b"\x00\xff{{{\n")
            return
        held = 0.0
        while held + 1 <= self.release_after:
            if self.mute_after is not None and held >= self.mute_after:
                return
            writer.write(b'{"heartbeat": 1}\n')
            await asyncio.sleep(1)
            held += 1
        await asyncio.sleep(self.release_after - held)
        writer.write(b'{"release": {"result": "verified"}}\n')
        self.answered.append(json.loads(await reader.readline())["answered"])
        writer.close()


def run(story, agent=None, env=ENV):
    async def whole():
        started(env)
        process = vtime.Process(agent.main, vtime.Program(), "agent") if agent else None
        await asyncio.sleep(0.1)
        told = await story(process)
        await asyncio.sleep(0.1)
        return told

    return vtime.run(whole(), limit_seconds=300)


def test_a_hold_is_answered_when_the_agent_releases_it():
    agent = Agent(release_after=7.5)
    status, seconds = run(lambda _: ask(), agent)
    assert status == b"HTTP/1.1 200 OK"
    assert 7.5 <= seconds < 7.6
    assert agent.asked == [{"ip": "127.17.1.2", "port": 15299, "container": "web"}]
    assert agent.answered == [1]


def test_without_an_agent_the_hold_lasts_the_fallback_sleep():
    _, seconds = run(lambda _: ask())
    assert 15 <= seconds < 15.1


@pytest.mark.parametrize("agent", [Agent(60, mute_after=4), Agent(garbage=True)], ids=["silent", "garbage"])
def test_an_agent_that_stops_making_sense_costs_the_fallback_sleep_and_no_more(agent):
    _, seconds = run(lambda _: ask(), agent)
    assert 15 <= seconds < 15.1


class Stalled(Agent):
    """One that is silent for a while, its connection open, and then goes on."""

    def __init__(self, at, seconds, release_after):
        super().__init__(release_after)
        self.at, self.seconds = at, seconds

    async def serve(self, reader, writer):
        began = asyncio.get_running_loop().time()
        self.asked.append(json.loads(await reader.readline())["hold"])
        while (held := asyncio.get_running_loop().time() - began) < self.release_after:
            writer.write(b'{"heartbeat": 1}\n')
            await asyncio.sleep(self.seconds if self.at <= held < self.at + 1 else min(1, self.release_after - held))
        writer.write(b'{"release": {"result": "verified"}}\n')
        with contextlib.suppress(ValueError):
            self.answered.append(json.loads(await reader.readline())["answered"])
        writer.close()


@pytest.mark.parametrize(
    ("stalled", "until", "answered"),
    [
        (Stalled(4, 9, 13.5), 13.5, [1]),  # it was back in time: its word counts
        (Stalled(4, 9, 30), 30, [1]),
        (Stalled(4, 20, 30), 15, []),  # not by the end of the sleep
        (Stalled(13, 3.5, 30), 30, [1]),  # three heartbeats are missed across it, and it is back
        (Stalled(20, 2.5, 30), 30, [1]),
        (Stalled(20, 9, 30), 23, []),
    ],
)  # fmt: skip
def test_an_agent_that_is_silent_may_come_back_until_the_fallback_sleep_would_have_ended(stalled, until, answered):
    _, seconds = run(lambda _: ask(), stalled)
    assert until <= seconds < until + 1.2
    assert stalled.answered == answered


@pytest.mark.parametrize("is_agent_stopped_too", [False, True])
def test_a_holder_that_was_not_run_itself_gives_nobody_up_for_that(is_agent_stopped_too):
    """The clock alone would say that the agent was silent: its heartbeats are read in the same turn that finds the time
    is up, or, where the whole machine stood still, come a little later."""

    async def story():
        ours, agents = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        agents.setblocking(True)
        loop = asyncio.get_running_loop()
        hold = holder.Hold("127.17.1.2", 15299, "web", loop.time() - 20)
        settings = holder.HolderSettings(silence_seconds=0.6)
        reading = loop.create_task(holder.Holder(settings, print)._line(hold, reader))
        await asyncio.sleep(0.01)
        if not is_agent_stopped_too:
            agents.sendall(b'{"heartbeat": 1}\n')
        time.sleep(0.8)  # realtime: nobody is run
        await asyncio.sleep(0.05)
        if is_agent_stopped_too:
            agents.sendall(b'{"heartbeat": 1}\n')
        line = await reading
        writer.close()
        agents.close()
        return line

    assert asyncio.run(story()) == b'{"heartbeat": 1}\n'


def test_an_agent_killed_in_a_hold_leaves_the_fallback_sleep_from_the_first_call():
    async def story(process):
        asking = asyncio.create_task(ask())
        await asyncio.sleep(6)
        process.signal(signal.SIGKILL)
        return await asking

    _, seconds = run(story, Agent(60))
    assert 15 <= seconds < 15.1


def test_an_agent_lost_after_the_fallback_sleep_has_passed_ends_the_hold():
    async def story(process):
        asking = asyncio.create_task(ask())
        await asyncio.sleep(20)
        process.signal(signal.SIGKILL)
        return await asking

    _, seconds = run(story, Agent(60))
    assert 20 <= seconds < 20.2


def test_a_kubelet_that_asks_again_joins_the_hold_it_left():
    agent = Agent(release_after=8)

    async def story(_):
        first = asyncio.create_task(ask())
        await asyncio.sleep(2)
        first.cancel()
        return await ask()

    _, seconds = run(story, agent)
    assert 5.8 <= seconds < 6.1
    assert len(agent.asked) == 1


def test_a_kubelet_that_is_gone_when_the_hold_ends_is_reported_as_gone():
    agent = Agent(release_after=4)

    async def story(_):
        _, writer = await asyncio.open_connection(*GATE)
        writer.write(b"PROXY TCP4 127.16.0.11 127.17.1.2 4 15299\r\nGET /gate/web HTTP/1.1\r\n\r\n")
        await asyncio.sleep(1)
        writer.close()
        await asyncio.sleep(10)

    run(story, agent)
    assert agent.answered == [0]


def test_containers_of_one_pod_are_held_apart():
    agent = Agent()

    async def story(_):
        return await asyncio.gather(ask("web"), ask("sidecar"))

    run(story, agent)
    assert sorted(asked["container"] for asked in agent.asked) == ["sidecar", "web"]


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 a b c d\r\n",
        b"x" * 100_000,
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 99999999999\r\n",
    ],
)
def test_garbage_is_dropped_and_the_next_hold_still_works(first):
    async def story(_):
        _, writer = await asyncio.open_connection(*GATE)
        writer.write(first)
        await asyncio.sleep(6)
        writer.close()
        return await ask()

    _, seconds = run(story, Agent(2))
    assert seconds < 2.1


@pytest.mark.parametrize("container", ["", "../etc", "UPPER", "a" * 64, "web/x"])
def test_a_path_that_names_no_container_is_answered_at_once(container):
    status, seconds = run(lambda _: ask(container), Agent(60))
    assert b"404" in status
    assert seconds < 0.1


def test_more_holds_than_the_bound_still_get_the_fallback_sleep():
    agent = Agent(1)

    async def story(_):
        many = [ask(ip=f"127.17.{n // 250}.{n % 250 + 1}") for n in range(1030)]
        return await asyncio.gather(*many)

    answers = run(story, agent)
    slow = [seconds for _, seconds in answers if seconds > 14]
    assert len(agent.asked) == 1024
    assert len(slow) == 6
    assert all(status == b"HTTP/1.1 200 OK" for status, _ in answers)


def test_a_slow_caller_is_dropped_after_five_seconds():
    async def story(_):
        reader, writer = await asyncio.open_connection(*GATE)
        writer.write(b"PROXY TCP4 127.16.0.11 127.17.1.2 4 15299\r\nGET /ga")
        began = asyncio.get_running_loop().time()
        assert await reader.read() == b""
        return asyncio.get_running_loop().time() - began

    assert 4.9 <= run(story) < 5.2


def test_a_terminated_holder_leaves_only_when_its_holds_are_over():
    async def whole():
        process = started()
        vtime.Process(Agent(9).main, vtime.Program(), "agent")
        await asyncio.sleep(0.1)
        asking = asyncio.create_task(ask())
        await asyncio.sleep(1)
        process.signal(signal.SIGTERM)
        _, seconds = await asking
        assert seconds >= 9
        assert await process.wait() == 0

    vtime.run(whole(), limit_seconds=60)


class Redirected:
    """A socket whose connection an nft rule redirected."""

    def __init__(self, family, raw):
        self.family, self.raw = family, raw

    def getsockopt(self, level, option, size):
        assert (level, option, size) == ((0, 80, 16) if self.family == socket.AF_INET else (41, 80, 28))
        return self.raw


def test_the_original_destination_is_read_as_the_kernel_writes_it():
    """linux/in.h sockaddr_in and sockaddr_in6: port and address in network order."""
    four = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 15299, socket.inet_aton("10.244.9.7"))
    six = struct.pack("=H", socket.AF_INET6) + struct.pack(
        "!HI16sI", 15299, 0, socket.inet_pton(socket.AF_INET6, "fd00::7"), 0
    )
    assert holder.original_destination(Redirected(socket.AF_INET, four)) == ("10.244.9.7", 15299)
    assert holder.original_destination(Redirected(socket.AF_INET6, six)) == ("fd00::7", 15299)


def test_the_holder_needs_the_standard_library_only():
    """It must start, and stay, when everything around it is upgraded or broken."""
    code = "import sys, tidegate.agent.holder; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"aiohttp", "msgspec", "click", "httptools", "yaml"} & set(json.loads(shown.replace("'", '"')))
