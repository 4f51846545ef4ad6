"""Clients of a load balancer, as a process of its own: it is told where on its command line, runs until its standard
input ends, and prints what became of every request as JSON. In network `kernel` it runs in a client's namespace.

    python -m bench.balanced '{"nodes": {"node-1": "10.16.0.11"}, "node_port": 30080, "health_port": 31000}'
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field

from tidegate.rehearse.balancer import Backends, Balancer

CLIENTS = 4
PAUSE_SECONDS = 0.05
READ_SECONDS = 10.0
WARM_SECONDS = 2.5
"""Two checks of every node come before the first request."""


@dataclass(slots=True)
class Counted:
    """Requests sent; each that was lost, and when (seconds since the first)."""

    sent: int = 0
    lost: list[str] = field(default_factory=list)
    began: float = 0.0


async def client(balancer: Balancer, counted: Counted) -> None:
    """One request after the other, a connection for each."""
    while True:
        counted.sent += 1
        try:
            await _request(balancer.pick())
        except (OSError, TimeoutError, ValueError) as error:
            at = asyncio.get_running_loop().time() - counted.began
            counted.lost.append(f"at {at:.1f} s: {error!r}")
        await asyncio.sleep(PAUSE_SECONDS)


async def _request(to: tuple[str, int] | None) -> None:
    if to is None:
        raise ConnectionRefusedError("no healthy node")
    async with asyncio.timeout(READ_SECONDS):
        reader, writer = await asyncio.open_connection(*to)
        try:
            writer.write(b"GET /sleep?ms=10 HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
        finally:
            writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(answer[:60])


async def main(asked: dict[str, object]) -> dict[str, object]:
    loop, counted = asyncio.get_running_loop(), Counted()
    nodes = {str(name): str(address) for name, address in dict(asked["nodes"]).items()}  # type: ignore[call-overload]
    balancer = Balancer(Backends(nodes, int(str(asked["node_port"])), int(str(asked["health_port"]))))
    tasks = [loop.create_task(balancer.run())]
    await asyncio.sleep(WARM_SECONDS)
    counted.began = loop.time()
    tasks += [loop.create_task(client(balancer, counted)) for _ in range(CLIENTS)]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    heard = [[round(at - counted.began, 3), node, status] for at, node, status in balancer.statuses]
    return {"sent": counted.sent, "lost": counted.lost, "heard": heard}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
