"""Clients of the stories on a real kubelet, and the node's own kernel as a judge that shares nothing with Tidegate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from tidegate.kube.errors import ApiError

if TYPE_CHECKING:
    from tests.realcluster.gate_scene import Life

REQUEST_SECONDS = 3.0
"""A first SYN that is lost is sent again after one."""
HELD_PORT_HEX = ":3BC3"
"""15299, as /proc/net/tcp spells it."""
COUNTING = """
table ip judge {
  set opened { type ipv4_addr; size 65535; flags dynamic; counter; }
  chain post {
    type filter hook postrouting priority 0;
    ct original ip daddr 10.96.0.0/16 tcp dport 8080 tcp flags & (syn | ack) == syn add @opened { ip daddr }
  }
}
"""
"""First packets of connections by the pod they go to, of those that were dialled at a ClusterIP (not probes)."""

Found = TypeVar("Found")


@contextlib.contextmanager
def counting() -> Iterator[None]:
    subprocess.run(["nft", "-f", "-"], input=COUNTING, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "judge"], check=True)


def opened() -> dict[str, int]:
    """Connections opened through a ClusterIP so far, by pod address; nothing where nobody counts."""
    shown = subprocess.run(["nft", "-j", "list", "set", "ip", "judge", "opened"], capture_output=True, text=True)
    if shown.returncode:
        return {}
    [found] = [one["set"] for one in json.loads(shown.stdout)["nftables"] if "set" in one]
    elements = [one["elem"] for one in found.get("elem", ())]
    return {one["val"]: one["counter"]["packets"] for one in elements}


def held_calls() -> int:
    """Calls of the gate that are open at whoever listens on its port."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        fields = [line.split() for line in file.readlines()[1:]]
    return sum(one[1].endswith(HELD_PORT_HEX) and one[3] == "01" for one in fields)


async def eventually(found: Callable[[], Coroutine[None, None, Found | None]], what: str, seconds: float = 20) -> Found:
    """What ``found`` returns once that is neither None nor False."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(ApiError, OSError):
                    if (value := await found()) not in (None, False):
                        return value
                await asyncio.sleep(0.03)  # realtime: a real kubelet works
    except TimeoutError:
        raise TimeoutError(f"not within {seconds:g} s: {what}") from None


async def answers(address: str) -> bool:
    return await request(address) == "ok"


async def request(address: str, port: int = 80, seconds: float = REQUEST_SECONDS) -> str:
    """One request on a connection of its own: "ok", or what went wrong."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            return "ok" if (await reader.read()).endswith(b"served\n") else "cut short"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout" if writer is not None else "timeout of its dial"
    except OSError as error:
        return type(error).__name__
    finally:
        if writer is not None:
            writer.close()


class Load:
    """New connections, ``rate`` a second, whatever became of those before; each may take ``seconds``.

    ``lasted``: seconds of the longest that was served. ``losses``: of the others, from when (the loop's clock) and why.
    """

    def __init__(self, address: str, rate: float = 150, seconds: float = REQUEST_SECONDS) -> None:
        self.outcomes: Counter[str] = Counter()
        self.lasted = 0.0
        self.losses: list[tuple[float, str]] = []
        self._address, self._rate, self._seconds = address, rate, seconds
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Load:
        self._driving = asyncio.create_task(self._drive())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._driving.cancel()
        await asyncio.gather(self._driving, *self._open, return_exceptions=True)

    @property
    def lost(self) -> int:
        return self.outcomes.total() - self.outcomes["ok"]

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            task = asyncio.create_task(self._one())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            due += 1 / self._rate
            await asyncio.sleep(max(0.0, due - loop.time()))  # realtime: real requests

    async def _one(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcome = await request(self._address, seconds=self._seconds)
        self.outcomes[outcome] += 1
        if outcome == "ok":
            self.lasted = max(self.lasted, loop.time() - began)
        else:
            self.losses.append((began, outcome))


HEADING = "way        lost/requests  deleted->SIGTERM s: min p50 max  ->all gone s  results"


def line(way: str, load: Load, lives: Sequence[Life]) -> str:
    """One row of the table of ways to end a pod."""
    held = sorted(one.held_seconds for one in lives)
    results = Counter(one.result.result.value if one.result else "no record" for one in lives)
    said = ", ".join(f"{count} {name}" for name, count in sorted(results.items()))
    lost = f"{load.lost}/{load.outcomes.total()}"
    gone = max(one.gone_at for one in lives) - min(one.deleted_at for one in lives)
    spread = " ".join(f"{one:5.2f}" for one in (held[0], statistics.median(held), held[-1]))
    return f"{way:<10} {lost:>13}  {spread:>31}  {gone:>12.1f}  {said}"
