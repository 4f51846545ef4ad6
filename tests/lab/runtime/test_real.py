"""Containers as OS processes: they start fast, log, die with their lab, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.exchange import Request
from tidegate.lab.runtime import processes
from tidegate.lab.runtime.logs import LogOptions
from tidegate.lab.runtime.real import RealRuntime
from tidegate.lab.runtime.spec import ContainerSpec, StartError

pytestmark = pytest.mark.realtime


def spec(name: str, lab: str, **fields: object) -> ContainerSpec:
    given = {"namespace": "default", "pod": name, "uid": f"uid-{name}", "container": "app", "image": "none"}
    return ContainerSpec(lab=lab, **{**given, **fields})  # type: ignore[arg-type]


async def logged(runtime: RealRuntime, pod: str, options: LogOptions = LogOptions()) -> bytes:
    return b"".join([chunk async for chunk in runtime.book.logs("default", pod, "app", options)])


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(3):
        while any(pid in processes.parents() for pid in pids):
            await asyncio.sleep(0.01)


async def test_commands_and_images_run_log_and_end(tmp_path: Path) -> None:
    lab = f"t-{os.getpid()}-a"
    runtime = RealRuntime(lab, ("tidegate.lab.echo",))
    runtime.open()
    try:
        quick = spec(
            "quick", lab, argv=("sh", "-c", "echo out; echo err >&2; exit 3"), log_path=str(tmp_path / "0.log")
        )
        process = await runtime.start(quick)
        assert await process.wait() == 3
        text = await logged(runtime, "quick", LogOptions(follow=True))
        assert sorted(text.split()) == [b"err", b"out"]
        assert b" stdout F out\n" in (tmp_path / "0.log").read_bytes()

        env = {"POD_IP": "127.0.77.1", "POD_NAME": "e", "TIDEGATE_IMAGE": "tidegate/echo:v7", "PORT": "8123"}
        before = time.perf_counter()
        echo = await runtime.start(spec("e", lab, entrypoint="tidegate.lab.echo:main", env=env))
        assert time.perf_counter() - before < 0.1
        async for line in runtime.book.logs("default", "e", "app", LogOptions(follow=True)):
            assert b"listening on 127.0.77.1:8123, version v7" in line
            break
        status, _, body = await wire.fetch(wire.Peer("127.0.77.1", 8123), Request("GET", "/"))
        assert (status, b'"version": "v7"' in body) == (200, True)
        echo.signal(signal.SIGTERM)
        assert await echo.wait() == 128 + signal.SIGTERM

        assert await runtime.run(quick, ("sh", "-c", "echo hi; exit 4")) == (4, b"hi\n")
        with pytest.raises(TimeoutError):
            await runtime.run(quick, ("sleep", "60"), timeout_seconds=0.05)
        with pytest.raises(StartError, match="executable file not found"):
            await runtime.start(spec("no", lab, argv=("no-such-program",)))
    finally:
        await runtime.close()
    assert processes.marked(lab) == []


DOUBLE_FORK = "import os; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
DAEMON = DOUBLE_FORK + 'os.execlp("sleep", "sleep", "99")'


def commands(pids: list[int]) -> str:
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return " | ".join(found)


async def test_a_container_takes_its_daemons_along() -> None:
    lab = f"t-{os.getpid()}-b"
    runtime = RealRuntime(lab)
    try:
        script = f"{sys.executable} -c '{DAEMON}'; sleep 600 & echo ready; exec sleep 600"
        process = await runtime.start(spec("d", lab, argv=("sh", "-c", script)))
        async for _ in runtime.book.logs("default", "d", "app", LogOptions(follow=True)):
            break
        async with asyncio.timeout(3):
            while len(below := processes.descendants(runtime.zygote_pid)) != 3 or "sleep 99" not in commands(below):
                await asyncio.sleep(0.01)
        process.signal(signal.SIGTERM)
        assert await process.wait() == 143
        await gone(below)
    finally:
        await runtime.close()


async def test_containers_die_with_their_zygote_and_the_next_one_starts_afresh() -> None:
    lab = f"t-{os.getpid()}-c"
    runtime = RealRuntime(lab)
    try:
        process = await runtime.start(spec("z", lab, argv=("sleep", "600")))
        os.kill(runtime.zygote_pid, signal.SIGKILL)
        assert await process.wait() == 128 + signal.SIGKILL
        await gone([process.pid])
        again = await runtime.start(spec("z", lab, argv=("true",), attempt=1))
        assert await again.wait() == 0
    finally:
        await runtime.close()


class Typed:
    """Streams of a test: what is typed, what came back."""

    def __init__(self, *typed: bytes, is_tty: bool = False) -> None:
        self.is_tty = is_tty
        self._typed = [*typed, b""]
        self.out = b""
        self.err = b""

    async def read(self) -> bytes:
        return self._typed.pop(0)

    async def write(self, data: bytes, /) -> None:
        self.out += data

    async def write_error(self, data: bytes, /) -> None:
        self.err += data


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, vtime.new_event_loop])
def test_a_command_beside_a_container_has_live_streams(factory) -> None:
    async def story() -> None:
        runtime = RealRuntime(f"t-{os.getpid()}-d")
        try:
            beside = spec("s", "t", env={"POD_IP": "127.0.77.9"})
            piped = Typed(b"one\n", b"two\n")
            assert await runtime.converse(beside, ("sh", "-c", "cat; echo $POD_IP >&2; exit 5"), piped) == 5
            assert (piped.out, piped.err) == (b"one\ntwo\n", b"127.0.77.9\n")
            typed = Typed(b"echo $((6*7)); tty; exit 4\n", is_tty=True)
            assert await runtime.converse(beside, ("sh",), typed) == 4
            assert b"42\r\n/dev/pts/" in typed.out
            assert await runtime.converse(beside, ("head", "-c", "2000000", "/dev/zero"), big := Typed()) == 0
            assert len(big.out) == 2_000_000
        finally:
            await runtime.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(story(), 10))
