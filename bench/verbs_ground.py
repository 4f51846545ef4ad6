"""What the verbs are judged with: a second opinion that shares nothing with them but the lab's addresses.

Clients open sockets of their own and note which pod answered, kubectl changes and reads objects, the command line runs
as a user runs it: another process, its exit code, its two outputs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ground import ROOT, BenchLab, bound

KUBECTL = shutil.which("kubectl", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
READ_SECONDS = 10.0
RETIRE_SECONDS = 1.0
"""A kept connection is given up after this long, as a browser's or a pool's is sooner or later."""
PAUSE_SECONDS = 0.02
SETTLE_SECONDS = 1.5
"""From a pod being ready to every proxy having it, twice over: what is lost before that is no verb's doing."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Its standard output as JSON. Raises ``ValueError`` where that is not all there is."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Answered:
    """One request that was answered: when it left and when it was over (the loop's clock), by which pod."""

    began: float
    ended: float
    pod: str
    version: str
    is_new: bool


@dataclass(slots=True)
class Tally:
    """Every request of some clients."""

    answered: list[Answered] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def sent(self) -> int:
        return len(self.answered) + len(self.lost)

    def by(self, pod: str, since: float, until: float = float("inf")) -> list[Answered]:
        """What ``pod`` answered on connections opened within these instants; kept ones began before and may go on."""
        return [one for one in self.answered if one.pod == pod and one.is_new and since <= one.began < until]


class Scene:
    """One namespace of a lab, and who acts in it."""

    def __init__(self, lab: BenchLab, namespace: str) -> None:
        self.lab = lab
        self.namespace = namespace
        self._env = {**os.environ, "KUBECONFIG": str(lab.folder.kubeconfig)}

    async def start(self, *words: str, kubeconfig: Path | None = None) -> asyncio.subprocess.Process:
        """``tidegate WORDS -n NAMESPACE``, under way."""
        where = ("-n", self.namespace) if words[0] != "lab" else ()
        env = self._env if kubeconfig is None else {**self._env, "KUBECONFIG": str(kubeconfig)}
        return await _spawn((sys.executable, "-m", "tidegate", *words, *where), env)

    async def tidegate(self, *words: str, kubeconfig: Path | None = None) -> Done:
        """The same to its end."""
        return await ended(await self.start(*words, kubeconfig=kubeconfig))

    async def kubectl(self, *words: str, stdin: str = "", codes: tuple[int, ...] = (0,)) -> str:
        """Raises ``RuntimeError`` for any other exit code."""
        if KUBECTL is None:
            raise RuntimeError("there is no kubectl: pip install -e '.[dev]' brings one")
        process = await _spawn((KUBECTL, "-n", self.namespace, *words), self._env)
        done = await ended(process, stdin)
        if done.code not in codes:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.err.strip()}")
        return done.out

    async def apply(self, *objects: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        await self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    async def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.kubectl("get", *what, "-o", "json"))
        return found

    async def pods(self, selector: str) -> list[str]:
        """Names of the ready pods that are not on their way out."""
        found = (await self.get("pods", "-l", selector))["items"]
        return sorted(one["metadata"]["name"] for one in found if _is_ready(one))

    async def ready(self, selector: str, count: int, seconds: float = 20.0) -> list[str]:
        """Raises ``TimeoutError`` where there are not so many in time."""
        async with asyncio.timeout(seconds):
            while len(found := await self.pods(selector)) != count:
                await asyncio.sleep(0.2)
        return found

    async def versions(self) -> dict[str, str]:
        """The resourceVersion of everything in the namespace that a verb could write."""
        found = await self.get("pods,services,deployments,replicasets")
        return {
            f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in found["items"]
        }

    async def address(self, service: str) -> tuple[str, int, int]:
        """ClusterIP, port and NodePort (0 for none)."""
        spec = (await self.get("service", service))["spec"]
        return spec["clusterIP"], spec["ports"][0]["port"], spec["ports"][0].get("nodePort", 0)

    def node(self, number: int) -> str:
        """The address of ``node-<number>``."""
        return f"127.{self.lab.record.block}.0.{10 + number}"

    @contextlib.asynccontextmanager
    async def load(self, service: str) -> AsyncIterator[Tally]:
        """Clients on every node for as long as this is open: through the ClusterIP and, where there is one, the
        NodePort, on a connection for each request, and on kept ones."""
        ip, port, node_port = await self.address(service)
        tally, over = Tally(), asyncio.Event()
        clients = []
        for number in (1, 2, 3):
            source = self.node(number)
            for is_new in (True, False):
                clients.append(_client(tally, over, source, (ip, port), is_new))
                if node_port:
                    clients.append(_client(tally, over, source, (source, node_port), is_new))
        await asyncio.sleep(SETTLE_SECONDS)
        tasks = [asyncio.create_task(one) for one in clients]
        try:
            await asyncio.sleep(0.5)
            yield tally
        finally:
            over.set()
            await asyncio.gather(*tasks)

    async def burst(self, at: tuple[str, int], count: int) -> Tally:
        """``count`` requests at once, each on a connection of its own."""
        tally = Tally()
        await asyncio.gather(*(_once(tally, self.node(1 + number % 3), at) for number in range(count)))
        return tally


async def ended(process: asyncio.subprocess.Process, stdin: str = "", seconds: float = 120.0) -> Done:
    async with asyncio.timeout(seconds):
        out, err = await process.communicate(stdin.encode() if stdin else None)
    return Done(process.returncode or 0, out.decode(), err.decode())


async def _spawn(command: tuple[str, ...], env: dict[str, str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, env=env, preexec_fn=bound()
    )


def _is_ready(obj: dict[str, Any]) -> bool:
    conditions = obj.get("status", {}).get("conditions", ())
    is_ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return is_ready and not obj["metadata"].get("deletionTimestamp")


# --- clients ---


async def _client(tally: Tally, over: asyncio.Event, source: str, at: tuple[str, int], is_new: bool) -> None:
    """One request after the other; a kept connection is retired between two requests, never within one."""
    loop = asyncio.get_running_loop()
    while not over.is_set():
        opened = loop.time()
        streams = await _dial(tally, source, at)
        if streams is None:
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        is_first = True
        while not over.is_set() and (is_first or (not is_new and loop.time() - opened < RETIRE_SECONDS)):
            if not await _ask(tally, streams, "/", is_first):
                break
            is_first = False
            await asyncio.sleep(PAUSE_SECONDS)
        streams[1].close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _dial(tally: Tally, source: str, at: tuple[str, int]) -> Streams | None:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await asyncio.open_connection(*at, local_addr=(source, 0))
    except (OSError, TimeoutError) as error:
        tally.lost.append(f"connect at {asyncio.get_running_loop().time() - tally.began:.1f} s: {error!r}")
        return None


async def _ask(tally: Tally, streams: Streams, path: str, is_new: bool, pod: str = "") -> bool:
    """One GET; False once the connection is of no more use. ``pod``: who answers, where the answer does not say."""
    began = asyncio.get_running_loop().time()
    reader, writer = streams
    try:
        async with asyncio.timeout(READ_SECONDS):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
            body = await reader.readexactly(size)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        tally.lost.append(f"{path} at {asyncio.get_running_loop().time() - tally.began:.1f} s: {error!r}")
        return False
    if not head.startswith("http/1.1 200"):
        tally.lost.append(head.partition("\r\n")[0])
        return False
    told = json.loads(body)
    ended_at = asyncio.get_running_loop().time()
    tally.answered.append(Answered(began, ended_at, told.get("pod", pod), told.get("version", ""), is_new))
    return "connection: close" not in head


async def _once(tally: Tally, source: str, at: tuple[str, int], path: str = "/") -> None:
    streams = await _dial(tally, source, at)
    if streams is not None:
        await _ask(tally, streams, path, True)
        streams[1].close()


async def slow(tally: Tally, source: str, at: tuple[str, int], seconds: float) -> None:
    """A request that tells which pod it is, then one on the same connection that the pod works on for ``seconds``."""
    streams = await _dial(tally, source, at)
    if streams is None:
        return
    if await _ask(tally, streams, "/", True):
        pod = tally.answered.pop().pod
        await _ask(tally, streams, f"/sleep?ms={seconds * 1000:.0f}", False, pod)
    streams[1].close()
