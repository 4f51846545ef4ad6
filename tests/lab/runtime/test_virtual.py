"""The same entry points and the modelled commands as virtual processes."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.lab.runtime.spec import ContainerSpec
from tidegate.lab.runtime.virtual import VirtualRuntime

IP = "127.17.1.2"


def spec(*argv, env=None, entrypoint=None):
    return ContainerSpec("lab", "ns", "web", "u", "app", "i", argv=argv, env=env or {}, entrypoint=entrypoint)


def echo(**env):
    given = {"POD_IP": IP, "POD_NAME": "web", "NODE_NAME": "node-1", "TIDEGATE_IMAGE": "tidegate/echo:v2", **env}
    return spec(env=given, entrypoint="tidegate.lab.echo:main")


async def get(path="/"):
    return await wire.fetch(wire.Peer(IP, 8080), Request("GET", *split(path)))


def split(path):
    path, _, query = path.partition("?")
    return path, tuple(tuple(pair.split("=")) for pair in query.split("&") if pair)


@pytest.mark.parametrize(
    ("argv", "code", "seconds"),
    [
        (("true",), 0, 0),
        (("false",), 1, 0),
        (("/bin/sleep", "3"), 0, 3),
        (("sleep", "2m"), 0, 120),
        (("sleep", "nonsense"), 1, 0),
        (("sh", "-c", "sleep 1; exit 7"), 7, 1),
        (("bash", "-ec", "sleep 1 && false && sleep 5"), 1, 1),
        (("sh", "-c", "false\nexec sleep 2"), 0, 2),
    ],
)
def test_known_commands_end_by_themselves(argv, code, seconds):
    async def story():
        loop = asyncio.get_running_loop()
        process = await VirtualRuntime().start(spec(*argv))
        began = loop.time()
        assert await process.wait() == code
        assert loop.time() - began == pytest.approx(seconds)

    vtime.run(story())


@pytest.mark.parametrize("argv", [("nginx", "-g", "daemon off;"), ("sh", "-c", "while true; do sleep 1; done")])
def test_any_other_command_runs_until_sigterm(argv):
    async def story():
        process = await VirtualRuntime().start(spec(*argv))
        await asyncio.sleep(1000)
        process.signal(signal.SIGTERM)
        assert await process.wait() == 143

    vtime.run(story())


def test_a_trap_ignores_sigterm_but_not_sigkill():
    async def story():
        process = await VirtualRuntime().start(spec("sh", "-c", "trap '' TERM; sleep 600"))
        await asyncio.sleep(1)
        process.signal(signal.SIGTERM)
        await asyncio.sleep(1)
        process.signal(signal.SIGKILL)
        assert await process.wait() == 137

    vtime.run(story())


def test_a_command_beside_a_container_is_killed_when_its_time_is_up():
    async def story():
        runtime = VirtualRuntime()
        assert await runtime.run(spec(), ("sh", "-c", "echo hi; exit 2")) == (2, b"hi\n")
        with pytest.raises(TimeoutError):
            await runtime.run(spec(), ("sleep", "10"), timeout_seconds=1.0)
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)

    vtime.run(story())


def test_echo_says_who_it_is():
    async def story():
        await VirtualRuntime().start(echo())
        await asyncio.sleep(0.1)
        status, headers, body = await get()
        assert status == 200
        assert json.loads(body) == {"pod": "web", "version": "v2", "node": "node-1"}
        assert headers["connection"] == "close"  # as asked: fetch closes
        assert (await get("/healthz"))[2] == b"ok"
        assert (await get("/nothing"))[0] == 404
        began = asyncio.get_running_loop().time()
        await get("/sleep?ms=250")
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.25, abs=0.01)

    vtime.run(story())


def test_echo_listens_after_its_startup_seconds():
    async def story():
        await VirtualRuntime().start(echo(STARTUP_SECONDS="0.3"))
        await asyncio.sleep(0.29)
        with pytest.raises(Unreachable):
            await get("/healthz")
        await asyncio.sleep(0.05)
        assert (await get("/healthz"))[0] == 200

    vtime.run(story())


def test_echo_exits_at_once_at_sigterm_and_loses_what_is_in_flight():
    async def story():
        process = await VirtualRuntime().start(echo(LATENCY_MS="500"))
        await asyncio.sleep(0.1)
        asking = asyncio.create_task(get())
        await asyncio.sleep(0.1)
        process.signal(signal.SIGTERM)
        assert await process.wait() == 143
        with pytest.raises(Unreachable):
            await asking

    vtime.run(story())


def test_echo_drains_when_told_to():
    async def story():
        process = await VirtualRuntime().start(echo(ON_SIGTERM="drain", LATENCY_MS="500"))
        await asyncio.sleep(0.1)
        idle_reader, _ = await asyncio.open_connection(IP, 8080)
        asking = asyncio.create_task(get())
        await asyncio.sleep(0.1)
        process.signal(signal.SIGTERM)
        await asyncio.sleep(0.01)
        assert await idle_reader.read() == b""
        with pytest.raises(Unreachable):
            await get()
        assert (await asking)[0] == 200
        assert await process.wait() == 0

    vtime.run(story())


def test_echo_answers_a_pipeline_in_order_on_a_kept_connection():
    async def story():
        await VirtualRuntime().start(echo())
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection(IP, 8080)
        writer.write(b"GET /sleep?ms=50 HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        first = await reader.readuntil(b"{}")
        second = await reader.readuntil(b"ok")
        assert b"keep-alive" in first and b"keep-alive" in second

    vtime.run(story())


def test_a_taken_port_ends_echo_with_a_word_in_its_log():
    async def story():
        runtime = VirtualRuntime()
        await runtime.start(echo())
        await asyncio.sleep(0.1)
        assert await (await runtime.start(echo())).wait() == 1

    vtime.run(story())
