"""The command verify: what it prints, what it exits with, what it refuses."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner
from stage import NS, deployment, first, other_node, play

from tidegate.cli.main import tidegate
from tidegate.cli.verify import exit_code, lines
from tidegate.client.verify import VerifyOptions, verify_pod
from tidegate.kube.api import PODS, Patch

UNGATED = deployment(gate=False)


def shown(prepare=None, **chosen):
    async def story(stage):
        name = await first(stage)
        straggler = await other_node(stage, name)
        if prepare is not None:
            prepare(stage, straggler)
            await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "test-offline"}}}), NS)
            await asyncio.sleep(0.1)
        options = VerifyOptions(**({"timeout_seconds": 6, "service": "echo", "seed": 0} | chosen))
        return name, straggler, (await verify_pod(stage.client, NS, name, options)).document

    return play(story, UNGATED)


@pytest.mark.parametrize(("result", "code"), [("unrouted", 0), ("routed", 1), ("unknown", 4), ("assumed", 4)])
def test_exit_codes_are_the_contract(result, code):
    assert exit_code(result) == code


def test_a_proof_names_each_nodes_evidence_and_what_was_tried():
    name, _, document = shown(lambda stage, node: None, probes=30)
    told = lines(document)
    assert told[0] == f"pod/{name} unrouted: no route is left"
    assert [line.split()[:3] for line in told[1:4]] == [["node", f"node-{n}", "no-route"] for n in (1, 2, 3)]
    assert "tidegate-lab/1 generation" in told[1]
    assert told[4] == "connections 0 live"
    assert told[-1] == "0 of 90 reach the pod"
    assert "30 opened, 0 reached, 0 refused, 0 unmatched" in told[-2]


def test_a_route_is_told_with_its_node_first():
    name, straggler, document = shown(lambda stage, node: stage.fault("proxy-freeze", node, 60))
    told = lines(document)
    assert told[0] == f"pod/{name} routed: traffic reaches it"
    assert told[1].startswith(f"  {straggler}: its tables lead to it: demo/echo:http (cluster-ip")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["svc/echo"], "is not pod/NAME"),
        (["pod/x", "--probe", "0"], "0 is not in the range"),
        (["pod/x", "--probe", "5", "--probe-http", "/"], "exclude each other"),
        (["pod/x", "--count", "5"], "--count is how many GETs"),
        (["pod/x", "--probe-http", "healthz"], "a path begins with a slash"),
        (["pod/x", "--probe-http", "/a b"], "has no spaces"),
        (["pod/x", "--timeout", "soon"], "is no duration"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_why(words, why):
    answer = CliRunner().invoke(tidegate, ["verify", *words])
    assert answer.exit_code == 2
    assert why in answer.output
