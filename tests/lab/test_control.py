"""The lab's own questions beside the Kubernetes API."""

from __future__ import annotations

import pytest

from tidegate import vtime
from tidegate.kube.api import PODS, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.lab.config import LabConfig
from tidegate.lab.control import FAULTS_PATH, apply_fault, register_token, status_of, tokens_of
from tidegate.lab.faults import Fault
from tidegate.lab.virtual import VirtualLab


def told(question):
    """What a two-node lab answers to ``question(client)``."""

    async def story():
        async with VirtualLab(LabConfig(nodes=2)) as lab:
            return await question(KubeClient(lab.lab.exchange, "lab"))

    return vtime.run(story())


def refused(question):
    with pytest.raises(ApiError) as refusal:
        told(question)
    return refusal.value.code, refusal.value.message


def test_a_fault_that_was_asked_for_is_in_the_status():
    async def question(client):
        await apply_fault(client, Fault("proxy-lag", "node-2", 8))
        return (await status_of(client))["faults"]

    assert told(question) == [{"kind": "proxy-lag", "node": "node-2", "seconds": 8.0}]


def test_a_node_that_is_not_there_is_refused_in_the_labs_own_words():
    code, message = refused(lambda client: apply_fault(client, Fault("clear", "node-9")))
    assert (code, message) == (400, "no node 'node-9'; nodes: node-1, node-2")


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", FAULTS_PATH, b"{", 400),
        ("POST", FAULTS_PATH, b'{"kind":"proxy-melt","node":"node-1"}', 400),
        ("POST", FAULTS_PATH, b'{"kind":"proxy-freeze","node":"node-1","second":20}', 400),
        ("POST", FAULTS_PATH, b'{"kind":"proxy-freeze","node":"node-1","seconds":-1}', 400),
        ("PUT", FAULTS_PATH, b"{}", 405),
        ("GET", "/lab/v1/weather", b"", 404),
    ],
)
def test_what_the_lab_does_not_understand_changes_nothing(method, path, body, code):
    async def question(client):
        with pytest.raises(ApiError) as refusal:
            await client.request(Request(method, path, (), {"content-type": "application/json"}, body))
        return refusal.value.code, (await status_of(client))["faults"]

    assert told(question) == (code, [])


def test_a_token_that_was_asked_for_is_listed_and_held_to_its_rules():
    async def question(client):
        await register_token(client, "alice", ["get:pods"], "demo")
        return await tokens_of(client)

    assert told(question) == [{"name": "alice", "token": "lab-alice", "rules": ["get:pods in demo"]}]


def test_a_rule_that_is_none_is_refused():
    async def question(client):
        await register_token(client, "alice", ["get:everything"])

    code, message = refused(question)
    assert (code, message.partition(";")[0]) == (400, 'the lab serves no "everything"')


def test_a_token_with_rules_may_not_ask_the_lab_for_more():
    async def story():
        async with VirtualLab(LabConfig(nodes=1)) as lab:
            token = lab.register_token("alice", ["*:*"])
            client = KubeClient(lab.exchange_as(token), "lab")
            await register_token(client, "alice", ["*:*"])

    with pytest.raises(ApiError) as refusal:
        vtime.run(story())
    assert refusal.value.message == 'forbidden: User "alice" cannot post path "/lab/v1/tokens"'


def test_a_virtual_lab_shows_a_403_to_a_client():
    async def story():
        async with VirtualLab(LabConfig(nodes=1)) as lab:
            client = KubeClient(lab.exchange_as(lab.register_token("alice", ["get:pods"])), "lab")
            await client.list(PODS, Selection("default"))

    with pytest.raises(ApiError) as refusal:
        vtime.run(story())
    assert (refusal.value.code, refusal.value.reason) == (403, "Forbidden")
