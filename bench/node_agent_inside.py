"""One kind of rules, measured in the network namespace this process is in: prints its figures as JSON."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import sys
import time
from pathlib import Path

import tidegate.agent.process
import tidegate.kube.direct
from bench.node_dumps import CONNECTIONS, SERVICES, pod, vip
from bench.node_rules import KINDS, Kind
from tidegate.dataplane.facts import Facts
from tidegate.dataplane.netlink import attribute, request
from tidegate.model.endpoint import Endpoint
from tidegate.observers.linux import LinuxKernel
from tidegate.observers.linux.commands import output
from tidegate.observers.linux.kernel import READING

IMPORTED = (tidegate.agent.process, tidegate.kube.direct)
"""What an agent has in its memory besides."""
MANY = 500
OPEN_SECONDS, IDLE_SECONDS = 30.0, 10.0
"""The first is one long poll (observers.witness.WAIT_SECONDS_MAX); its two looks at connections are in the figure."""
TOOL_SECONDS = 200.0


def connections() -> None:
    """Put entries into this namespace's table."""

    def direction(kind: int, source: str, destination: str, ports: tuple[int, int]) -> bytes:
        addresses = attribute(1, socket.inet_aton(source)) + attribute(2, socket.inet_aton(destination))
        numbers = (
            attribute(1, b"\x06")
            + attribute(2, struct.pack(">H", ports[0]))
            + attribute(3, struct.pack(">H", ports[1]))
        )
        return attribute(kind | 0x8000, attribute(1 | 0x8000, addresses) + attribute(2 | 0x8000, numbers))

    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        for number in range(CONNECTIONS):
            source, port = f"10.200.{number // 250 % 250}.{number % 250 + 1}", 1024 + number % 60_000
            to = pod(number % SERVICES, 0)
            state, status = ((3, 0xE), (7, 0xE), (1, 0x8))[number % 3]
            body = b"\2\0\0\0" + direction(1, source, vip(number % SERVICES), (port, 80))
            body += direction(2, to, source, (8080, port)) + attribute(3, struct.pack(">I", status))
            body += attribute(4 | 0x8000, attribute(1 | 0x8000, attribute(1, bytes([state]))))
            netlink.send(request(0x100, 0x605, number, body + attribute(7, struct.pack(">I", 900))))
            if error := struct.unpack_from("=i", netlink.recv(4096), 16)[0]:
                raise OSError(-error, "no connection could be made")


async def read(kernel: LinuxKernel, endpoints: tuple[Endpoint, ...] | None) -> Facts:
    """Asked again, as a witness does, while it is still being read."""
    while (facts := (await kernel.read(endpoints)).facts).unreadable and facts.unreadable[0].reason == READING:
        await asyncio.sleep(0)
    return facts


async def asked(kernel: LinuxKernel, endpoints: tuple[Endpoint, ...], leads: bool) -> tuple[float, float]:
    """Milliseconds, and those of this process' CPU, until the answer is there. It has to be the right one."""
    began, cpu = time.perf_counter(), time.process_time()
    facts = await read(kernel, endpoints)
    took = 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - cpu)
    assert facts.unreadable == (), facts.unreadable
    assert all(bool(facts.routes_to(one)) == leads for one in endpoints)
    return took


async def changes(kernel: LinuxKernel, kind: Kind, size: int, rounds: int) -> list[tuple[float, float]]:
    """Pods leave, and come back, and are asked about each time."""
    found = []
    for at in range(rounds):
        services = [(at * 7 + more * 17) % SERVICES for more in range(size)]
        endpoints = tuple(Endpoint(pod(one, 4), 8080) for one in services)
        for count in (4, 5):
            await asyncio.to_thread(output, *kind.change_tool, text=kind.changed(services, count), seconds=TOOL_SECONDS)
            found.append(await asked(kernel, endpoints, leads=count == 5))
    return found


async def idle(kernel: LinuxKernel, is_open: bool) -> float:
    """Thousandths of a core."""
    endpoints = (Endpoint(pod(5000, 0), 8081),)
    generation = (await kernel.read(endpoints)).generation
    seconds = OPEN_SECONDS if is_open else IDLE_SECONDS
    cpu = time.process_time()
    if is_open:
        await kernel.read_after(generation, seconds, endpoints)
    else:
        await asyncio.sleep(seconds)
    return 1000 * (time.process_time() - cpu) / seconds


def mib(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def main(kind: Kind) -> None:
    kernel = LinuxKernel("node", "", dict)
    began, cpu = time.perf_counter(), time.process_time()
    await read(kernel, ())
    first, first_cpu = time.perf_counter() - began, time.process_time() - cpu
    one = await changes(kernel, kind, 1, kind.rounds[0])
    many = await changes(kernel, kind, MANY, kind.rounds[1])
    told = {
        "first": first, "first_cpu": first_cpu, "one": [wall for wall, _ in one], "one_cpu": [cpu for _, cpu in one],
        "many": [wall for wall, _ in many], "many_cpu": [cpu for _, cpu in many],
        "open": await idle(kernel, True), "idle": await idle(kernel, False), "rss": mib("VmRSS"), "peak": mib("VmHWM"),
    }  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    chosen = KINDS[sys.argv[1]]
    if len(sys.argv) > 2:
        output(*chosen.tool, text=chosen.whole(), seconds=TOOL_SECONDS)
        connections()
        print("loaded")
    else:
        # In a process of their own: the rules' text would stay in this one's memory.
        output(sys.executable, "-m", "bench.node_agent_inside", sys.argv[1], "load", seconds=TOOL_SECONDS)
        asyncio.run(main(chosen))
