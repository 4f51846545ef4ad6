"""The ports for command lines: who gets an answer there, and what asking costs the API server."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.agent.fake_api import FakeApi
from tests.agent.stage import play

from tidegate import vtime
from tidegate.agent import callers
from tidegate.agent.callers import Callers
from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, whole
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers.asking import (
    ACCESSREVIEWS,
    ACCOUNT,
    AGENT_ASK_PORT,
    AUDIENCE,
    COORDINATOR_ASK_PORT,
    TOKEN_HEADER,
    TOKENREVIEWS,
)
from tidegate.observers.coordinator import STATUS_PATH
from tidegate.observers.proxied import ProxiedAgents, ProxiedCoordinator
from tidegate.observers.witness import ABOUT_PATH


class Judge(FakeApi):
    """Knows the token "good"; ``allows``: verbs; ``lag``: seconds that an answer takes."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.allows = {"get", "create"}
        self.lag = 0.0
        self.audiences = [AUDIENCE]

    async def create(self, resource, obj, namespace="", subresource=""):
        self.asked.append(resource.plural)
        await asyncio.sleep(self.lag)
        if self.down:
            raise Unreachable("the API is down")
        spec = obj["spec"]
        if resource is TOKENREVIEWS:
            known = {"authenticated": True, "user": {"username": "ann"}, "audiences": self.audiences}
            return {"status": known if spec["token"] == "good" else {"user": {}}}
        assert resource is ACCESSREVIEWS
        assert spec["user"] == "ann" and spec["resourceAttributes"]["namespace"] == SYSTEM_NAMESPACE
        return {"status": {"allowed": spec["resourceAttributes"]["verb"] in self.allows}}


async def app(request):
    return whole(200, json.dumps(dict(request.headers)).encode())


def ask(judge, token="good", method="GET", path="/v1/about", guarded=None):
    guarded = guarded or Callers(judge).guarded(app)
    return guarded(Request(method, path, (), {TOKEN_HEADER: token} if token else {}))


@pytest.mark.parametrize(
    ("token", "method", "change", "status", "said"),
    [
        ("good", "GET", {}, 200, ""),
        ("good", "POST", {}, 200, ""),
        ("", "GET", {}, 401, "a token of audience tidegate is wanted"),
        ("forged", "GET", {}, 401, "does not know this token"),
        ("good", "POST", {"allows": {"get"}}, 403, "ann may not create questions.tidegate.dev in tidegate-system"),
        ("good", "GET", {"audiences": []}, 401, "does not know this token"),
        ("good", "GET", {"audiences": ["https://kubernetes.default.svc"]}, 401, "does not know this token"),
        ("good", "GET", {"down": True}, 503, "it cannot be told who asks"),
    ],
)
def test_who_asks_is_judged_and_what_cannot_be_told_is_refused(token, method, change, status, said):
    async def story():
        judge = Judge()
        for name, value in change.items():
            setattr(judge, name, value)
        return await ask(judge, token, method)

    answer = vtime.run(story())
    assert answer.status == status
    assert said in answer.body.decode()
    assert "good" not in answer.body.decode() and "forged" not in answer.body.decode(), "no token is told again"


def test_health_is_told_to_anybody():
    assert vtime.run(ask(Judge(), "", path="/healthz")).status == 200


def test_a_token_is_judged_once_in_ten_seconds_and_a_forged_one_too():
    async def story():
        judge = Judge()
        judge.lag = 0.1
        guarded = Callers(judge).guarded(app)
        for token, calls in (("good", 2), ("forged", 1)):
            judge.asked.clear()
            await asyncio.gather(*(ask(judge, token, guarded=guarded) for _ in range(50)))
            await asyncio.sleep(callers.KEPT_SECONDS / 2)
            await ask(judge, token, guarded=guarded)
            assert len(judge.asked) == calls
            await asyncio.sleep(callers.KEPT_SECONDS)
            await ask(judge, token, guarded=guarded)
            assert len(judge.asked) == 2 * calls

    vtime.run(story())


def test_a_flood_of_forged_tokens_is_no_flood_of_the_api_server_and_is_forgotten():
    async def story():
        judge = Judge()
        judge.lag = 0.05
        judging = Callers(judge)
        guarded = judging.guarded(app)
        answers = await asyncio.gather(*(ask(judge, f"forged-{n}", guarded=guarded) for n in range(1000)))
        told = [one.status for one in answers]
        assert (told.count(401), told.count(429)) == (callers.REVIEWS_MAX, 1000 - callers.REVIEWS_MAX)
        for n in range(400):
            await ask(judge, f"later-{n}", guarded=guarded)
        assert len(judging._kept) == callers.KEPT_MAX
        assert b"good" not in repr(judging._kept).encode()
        assert (await ask(judge, guarded=guarded)).status == 200

    vtime.run(story())


def test_a_token_api_that_fails_is_asked_again_at_once():
    async def story():
        judge = Judge()
        guarded = Callers(judge).guarded(app)
        judge.down = True
        assert (await ask(judge, guarded=guarded)).status == 503
        judge.down = False
        return await ask(judge, guarded=guarded)

    assert vtime.run(story()).status == 200


def test_in_a_lab_command_lines_are_answered_and_others_are_not():
    async def story(stage):
        answer = await ProxiedCoordinator(stage.client).status()
        assert answer["holding"]
        body = await ProxiedAgents(stage.client).call("node-2", Request("GET", ABOUT_PATH))
        assert json.loads(body)["node"] == "node-2"
        for port, path, address in (
            (AGENT_ASK_PORT, ABOUT_PATH, "127.16.0.12"),
            (COORDINATOR_ASK_PORT, STATUS_PATH, "127.16.0.11"),
        ):
            peer = wire.Peer(address, port)
            assert (await wire.fetch(peer, Request("GET", path)))[0] == 401
            other = await stage.client.token(SYSTEM_NAMESPACE, ACCOUNT, "https://kubernetes.default.svc")
            assert (await wire.fetch(peer, Request("GET", path, (), {TOKEN_HEADER: other})))[0] == 401
            token = await stage.client.token(SYSTEM_NAMESPACE, ACCOUNT, AUDIENCE)
            assert (await wire.fetch(peer, Request("GET", path, (), {TOKEN_HEADER: token})))[0] == 200
        assert token is await stage.client.token(SYSTEM_NAMESPACE, ACCOUNT, AUDIENCE), "asked for once"

    play(story)
