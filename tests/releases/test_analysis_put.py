"""Analyses put for real, on loopback and in virtual time: bounded in time and in what is read."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tidegate import vtime
from tidegate.client.release.analysis import BODY_BYTES_MAX, ask
from tidegate.kube import wire
from tidegate.kube.exchange import whole
from tidegate.release.spec import Analysis

HOST = "127.0.0.1"


def put(one, answer, is_before=False, port=9090):
    """(what was found, what was asked, seconds) in virtual time."""

    async def story():
        asked = []

        async def exchange(request):
            asked.append(request)
            return await answer(request)

        loop = asyncio.get_running_loop()
        async with wire.serving(exchange, HOST, port):
            began = loop.time()
            found = await ask(one, is_before)
            return found, asked, loop.time() - began

    return vtime.run(story(), limit_seconds=60)


def prometheus(value):
    async def answer(request):
        result = [{"metric": {}, "value": [0, value]}] if value is not None else []
        return whole(
            200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        )

    return answer


RATE = Analysis("rate", "prometheus", url=f"http://{HOST}:9090/prom/", query='a{b="c"}', success="> 1")


def test_prometheus_is_asked_for_an_instant():
    found, (request,), _ = put(RATE, prometheus("2"))
    assert found.is_passed
    assert request.path == "/prom/api/v1/query" and request.param("query") == 'a{b="c"}'
    assert request.headers["host"] == f"{HOST}:9090"


def test_no_data_passes_before_and_is_a_problem_later():
    assert put(RATE, prometheus(None), is_before=True)[0].is_passed
    assert put(RATE, prometheus(None))[0].is_passed is None


@pytest.mark.parametrize(("status", "is_passed"), [(200, True), (500, False)])
def test_an_http_check_is_its_status(status, is_passed):
    async def answer(request):
        return whole(status, b"ok")

    one = Analysis("up", "http", url=f"http://{HOST}:9090/check?deep=1")
    found, (request,), _ = put(one, answer)
    assert found.is_passed is is_passed
    assert (request.path, request.param("deep")) == ("/check", "1")


def test_who_does_not_answer_in_time_is_a_problem_and_nobody_waits_longer():
    async def answer(request):
        await asyncio.get_running_loop().create_future()

    found, _, seconds = put(RATE, answer)
    assert found.is_passed is None and "no answer within 5 s" in found.text and seconds == pytest.approx(5, abs=0.1)


def test_an_answer_without_end_is_given_up():
    async def answer(request):
        return whole(200, b"x" * (BODY_BYTES_MAX + 1))

    found, _, _ = put(RATE, answer)
    assert found.is_passed is None and "more than" in found.text


def test_nobody_there_is_a_problem():
    found, asked, _ = put(RATE, prometheus("2"), port=9091)
    assert found.is_passed is None and found.text.startswith("cannot be asked: ") and not asked


@pytest.mark.parametrize("url", ["prometheus:9090", "http://", "http://h:x/", "ftp://h/"])
def test_what_is_no_url_is_a_problem_that_says_what_to_write(url):
    found = asyncio.run(ask(Analysis("rate", "http", url=url)))
    assert found.is_passed is None and "is no URL" in found.text


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("code", "is_passed", "text"),
    [
        ("print('all is well')", True, "exit code 0: all is well"),
        ("print('2 % errors'); raise SystemExit(1)", False, "exit code 1: 2 % errors"),
        ("raise SystemExit(3)", None, "exit code 3"),
        ("print('x' * 10**7)", True, "exit code 0"),
        ("import signal; signal.pause()", None, "took longer than 1 s"),
    ],
)
def test_a_command_is_its_exit_code(code, is_passed, text):
    one = Analysis("own", "command", command=(sys.executable, "-S", "-E", "-c", code), timeout_seconds=1.0)
    found = asyncio.run(ask(one))
    assert found.is_passed is is_passed and text in found.text


def test_a_command_that_is_not_there_is_a_problem():
    found = asyncio.run(ask(Analysis("own", "command", command=("/nowhere/at-all",))))
    assert found.is_passed is None and "/nowhere/at-all" in found.text
