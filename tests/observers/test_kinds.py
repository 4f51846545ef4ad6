"""What each kind of observer makes of what it is told: routed, let go, or unknown - and unknown is never let go."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import whole
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.command_check import CommandCheck
from tidegate.observers.external import Question, Replica, Spec, Where
from tidegate.observers.haproxy import HAProxy
from tidegate.observers.http_check import HttpCheck
from tidegate.observers.tcp_check import TcpCheck
from tidegate.observers.traefik import Traefik

POD, OTHER = Endpoint("10.0.0.1"), Endpoint("10.0.0.11")
QUESTION = Question((POD, OTHER), "main", Epoch("main", 7), 2.0)


def spec(**options):
    return Spec("x", Where(addresses=("127.0.0.1:1",)), options, "$.observers[0].options")


async def asked(kind, answer, question=QUESTION, **options):
    """The facts from a server that gives ``answer(request)``."""

    async def exchange(request):
        return answer(request)

    async with wire.serving(exchange, "127.0.0.1") as server:
        return await kind(spec(**options)).ask(Replica("r", f"127.0.0.1:{server.port}"), question)


def says(**answer):
    return lambda request: whole(200, json.dumps(answer).encode())


class TestHttp:
    async def test_each_endpoint_is_asked_about_with_the_template(self):
        seen = []

        def answer(request):
            seen.append((request.method, request.target, request.body.decode(), request.headers["x-key"]))
            return whole(200, json.dumps({"routed": request.param("ip") == "10.0.0.1", "epoch": 7}).encode())

        options = {"path": "/routed?ip={address}&e={epoch}", "method": "POST", "body": '{"to": "{endpoint}"}'}
        facts = await asked(HttpCheck, answer, **options, headers={"X-Key": "k-{port}"})
        assert facts.routes_to(POD) and not facts.routes_to(OTHER)
        assert set(facts.fence) == {Epoch("main", 7)}
        assert sorted(seen)[0] == ("POST", "/routed?ip=10.0.0.1&e=7", '{"to": "10.0.0.1:0"}', "k-0")

    async def test_without_an_epoch_it_is_weak_evidence(self):
        facts = await asked(HttpCheck, says(routed=False), path="/")
        assert not facts.routes and not facts.fence and not facts.unreadable

    async def test_one_answer_without_an_epoch_leaves_all_of_them_weak(self):
        def answer(request):
            body = {"routed": False, **({"epoch": 7} if request.path == "/10.0.0.1" else {})}
            return whole(200, json.dumps(body).encode())

        assert (await asked(HttpCheck, answer, path="/{address}")).fence == ()

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"no", b"[]", b"{}", b'{"routed": "false"}', b'{"routed": 0}', b'{"routed": false, "epoch": "7"}',
            b'{"routed": false, "epoch": -1}',
        ],
    )  # fmt: skip
    async def test_anything_else_is_unreadable(self, body):
        facts = await asked(HttpCheck, lambda request: whole(200, body), path="/")
        assert facts.unreadable

    async def test_a_status_it_was_not_told_about_is_unreadable(self):
        assert (await asked(HttpCheck, lambda request: whole(404, b"{}"), path="/")).unreadable
        facts = await asked(HttpCheck, lambda request: whole(404, b"{}"), path="/", absentStatus=[404])
        assert not facts.unreadable and not facts.routes

    async def test_an_error_of_the_server_is_no_answer(self):
        with pytest.raises(Unreachable, match="answered 503"):
            await asked(HttpCheck, lambda request: whole(503, b"{}"), path="/")

    async def test_a_condition_reads_other_shapes(self):
        condition = {"path": "targets.0.state", "equals": "unused"}
        facts = await asked(HttpCheck, says(targets=[{"state": "unused"}]), path="/", letGoWhen=condition)
        assert not facts.routes and not facts.unreadable
        facts = await asked(HttpCheck, says(targets=[{"state": "draining"}]), path="/", letGoWhen=condition)
        assert facts.routes_to(POD)
        assert (await asked(HttpCheck, says(targets=[]), path="/", letGoWhen=condition)).unreadable


class TestTcp:
    async def ask(self, *lines, **options):
        answers = list(lines)

        async def serve(reader, writer):
            writer.write(answers.pop(0).encode() if len(answers) > 1 else answers[0].encode())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1")
        try:
            port = server.sockets[0].getsockname()[1]
            return await TcpCheck(spec(samples=4, **options)).ask(Replica("r", f"127.0.0.1:{port}"), QUESTION)
        finally:
            server.close()

    async def test_whoever_answers_is_routed_to(self):
        facts = await self.ask("I am 10.0.0.11", "I am 10.0.0.2")
        assert facts.routes_to(OTHER) and not facts.routes_to(POD), (
            "10.0.0.1 is a part of 10.0.0.11 only by its letters"
        )
        assert not facts.fence, "a choice at random may have passed it over: weak"

    async def test_a_connection_without_a_word_leaves_it_unknown(self):
        with pytest.raises(Unreachable, match="without a word"):
            await self.ask("I am 10.0.0.2", "")

    async def test_a_refused_connection_leaves_it_unknown(self):
        with pytest.raises(Unreachable):
            await TcpCheck(spec()).ask(Replica("r", "127.0.0.1:1"), QUESTION)

    def test_a_mark_that_names_no_endpoint_is_an_error(self):
        with pytest.raises(ValueError, match="mark"):
            TcpCheck(spec(mark="hello"))


class TestCommand:
    async def ask(self, code, question=QUESTION):
        return await CommandCheck(spec(command=[sys.executable, "-c", code])).ask(Replica("r", "10.9.9.9:1"), question)

    async def test_exit_0_is_let_go(self):
        facts = await self.ask("")
        assert not facts.routes and not facts.unreadable and not facts.fence

    async def test_exit_1_still_routes_to_those_it_prints_or_to_all(self):
        assert (await self.ask("raise SystemExit(1)")).routes_to(POD)
        code = "import os; print(os.environ['TIDEGATE_ENDPOINTS'].splitlines()[1]); raise SystemExit(1)"
        facts = await self.ask(code)
        assert facts.routes_to(OTHER) and not facts.routes_to(POD)

    async def test_a_line_tells_its_epoch(self):
        assert (await self.ask("import os; print('epoch', os.environ['TIDEGATE_EPOCH'])")).fence == (Epoch("main", 7),)

    @pytest.mark.parametrize(
        "code",
        [
            "raise SystemExit(2)", "import os; os.kill(os.getpid(), 9)", "print('epoch many')",
            "print('10.1.1.1:0/TCP'); raise SystemExit(1)",
        ],
    )  # fmt: skip
    async def test_anything_else_is_unknown(self, code):
        assert (await self.ask(code)).unreadable

    async def test_one_that_hangs_is_killed_with_all_it_started(self, tmp_path):
        file = tmp_path / "late"
        code = f"import subprocess, signal; subprocess.Popen(['sh', '-c', 'sleep 1; touch {file}']); signal.pause()"
        with pytest.raises(Unreachable, match=r"longer than 0\.5 s"):
            await self.ask(code, Question((POD,), "main", None, 0.5))
        await asyncio.sleep(1.0)
        assert not file.exists()

    async def test_one_that_is_not_there_is_unreachable(self):
        with pytest.raises(Unreachable, match="no-such-program"):
            await CommandCheck(spec(command=["no-such-program"])).ask(Replica("r", ""), QUESTION)


async def test_traefik_in_pages_is_unreadable_and_no_api_is_no_answer():
    facts = await asked(Traefik, lambda request: whole(200, b"[]", x_next_page="2"))
    assert "more than" in str(facts.unreadable[0])
    with pytest.raises(Unreachable, match="is its API on"):
        await asked(Traefik, lambda request: whole(404, b"404 page not found"))


async def test_haproxy_over_a_unix_socket(tmp_path):
    async def serve(reader, writer):
        assert await reader.readline() == b"show servers state\n"
        writer.write(b"1\n# be_name srv_name srv_addr srv_admin_state srv_port\nb s 10.0.0.1 0 80\n\n")
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    try:
        assert (await HAProxy(spec()).ask(Replica("r", f"unix:{tmp_path}/s"), QUESTION)).routes_to(POD)
        with pytest.raises(Unreachable):
            await HAProxy(spec()).ask(Replica("r", f"unix:{tmp_path}/none"), QUESTION)
    finally:
        server.close()
