"""What the scenarios share beside the agent's stage: clients of a Service, an API in bad weather, a second judge.

``crossed(stage)`` is the second judge of every scenario: from the kernels' journal, was a ``verified`` pod given a
connection after it was told to stop, or told to stop with one open?
"""

from __future__ import annotations

import asyncio
import json

from stage import NS, Switch, switched
from stage import play as play_on_stage

from tidegate.kube.api import PODS, SERVICES
from tidegate.kube.errors import ApiError

NODES = {f"node-{index}": f"127.16.0.{10 + index}" for index in (1, 2, 3)}


def crossed(stage):
    """Connections that contradict a recorded ``verified``, a sentence each."""
    entries = stage.lab.journal()
    verified = {name for name in stage.annotations if (stage.result(name) or {}).get("result") == "verified"}
    ips = {e["pod"]: e["ip"] for e in entries if e["event"] == "process-started"}
    stopped = {}
    for entry in entries:
        if entry["event"] == "signal-sent" and entry["pod"] in verified:
            stopped.setdefault(ips[entry["pod"]], (entry["at"], entry["pod"]))
    found = []
    for entry in entries:
        if not entry["event"].startswith("connection-"):
            continue
        at, pod = stopped.get(entry["endpoint"].rpartition(":")[0], (float("inf"), ""))
        if entry["opened"] > at:
            found.append(f"{pod} was given a connection {entry['opened'] - at:.3f} s after its SIGTERM")
        elif entry["opened"] <= at < entry["pod_closed"]:
            found.append(f"{pod} was told to stop with {entry['source']} connected")
    return found


def play(story, manifest=None, seed=0, limit=400, **options):
    """As the agent's ``play``, judged by the connections too."""

    async def judged(stage):
        answer = await story(stage)
        assert crossed(stage) == []
        return answer

    return play_on_stage(judged, manifest, seed, limit, **options)


async def ask(stage, path="/", source="node-2", service="echo", keep=False):
    """An open connection through the Service, as a client on ``source`` makes it, with ``path`` asked on it."""
    found = await stage.api.get(SERVICES, service, NS)
    reader, writer = await asyncio.open_connection(
        found["spec"]["clusterIP"], found["spec"]["ports"][0]["port"], local_addr=(NODES[source], 0)
    )
    close = "" if keep else "Connection: close\r\n"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode())
    return reader, writer


async def asked_of(stage, name, path="/sleep?ms=6000", source="node-2", keep=False):
    """A connection through the Service that was given to the pod ``name``, with a request under way on it."""
    pod = await stage.api.get(PODS, name, NS)
    wanted = f"{pod['status']['podIP']}:8080"
    for _ in range(100):
        reader, writer = await ask(stage, path, source, keep=keep)
        await asyncio.sleep(0.01)
        dump = await stage.lab.lab.kernel.dump(source)
        port = writer.get_extra_info("sockname")[1]
        entries = json.loads(dump)["conntrack"]
        if any(e["source"] == f"{NODES[source]}:{port}" and e["endpoint"] == wanted for e in entries):
            return reader, writer
        writer.transport.abort()
    raise AssertionError(f"no connection was given to {name}")


class Weather(Switch):
    """The API as agents and coordinator reach it. ``answer(request)`` may raise, wait, or give None: pass."""

    async def __call__(self, request):
        if self.is_off:
            answer = await self.is_off(request)
            if answer is not None:
                return answer
        return await self.exchange(request)


def weather(monkeypatch):
    """``with weather(monkeypatch) as turn: turn(answer)`` changes the API for agents and coordinator; None: clear."""
    return switched(monkeypatch, Weather)


class Mortal:
    """The way to the API of a process that is killed after its ``last`` write: what it sends later goes nowhere."""

    def __init__(self, exchange, last):
        self.exchange, self.last = exchange, last
        self.writes = []
        self.died = asyncio.Event()

    async def __call__(self, request):
        if self.died.is_set():
            await asyncio.get_running_loop().create_future()
        answer = await self.exchange(request)
        if request.method in ("PATCH", "DELETE") or (request.method == "POST" and request.path.endswith("/services")):
            self.writes.append(f"{request.method} {request.path}")
            if len(self.writes) == self.last:
                self.died.set()
                await asyncio.get_running_loop().create_future()
        return answer


def failing(code, reason):
    async def answer(request):
        raise ApiError(code, reason, f"{reason} by the weather")

    return answer


async def hanging(request):
    await asyncio.get_running_loop().create_future()
