"""The definitions as a real API server takes them: accepted, defaults, refusals with the field's path, columns, status;
and its rules are those of ``release/spec.py``, over many specs."""

from __future__ import annotations

import random

import msgspec
import pytest
from tests.realcluster.definitions import NS, defined

from tidegate.kube.api import RELEASES, Patch
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.release.spec import Invalid, decode_spec

pytestmark = pytest.mark.realcluster


def release(spec, name="web"):
    metadata = {"name": name, "namespace": NS}
    return {"apiVersion": RELEASES.api_version, "kind": "Release", "metadata": metadata, "spec": spec}


async def answered(api, spec):
    """None where the server takes ``spec`` (in a dry run), else its words."""
    path = RELEASES.path(NS)
    query = (("dryRun", "All"), ("fieldValidation", "Strict"))
    body = msgspec.json.encode(release(spec))
    try:
        await api.request(Request("POST", path, query, {"content-type": "application/json"}, body))
    except ApiError as error:
        assert error.code in (400, 422), error
        return str(error)
    return None


def judged(spec):
    """None where ``decode_spec`` takes it, else its words."""
    try:
        decode_spec(spec)
    except Invalid as error:
        return str(error)
    return None


async def test_defaults_are_written_and_are_those_of_the_structs(quiet_cluster):
    async with defined(quiet_cluster) as api:
        steps = [{"weight": 10, "pauseSeconds": None}, {"weight": 50}]
        made = await api.create(
            RELEASES, release({"workload": "web", "strategy": "canary", "canary": {"steps": steps}}, "defaults"), NS
        )
        assert made["spec"]["progressSeconds"] == 600
        assert made["spec"]["canary"]["steps"] == [
            {"weight": 10, "pauseSeconds": None},
            {"weight": 50, "pauseSeconds": 0},
        ]
        asked = {"workload": "web", "strategy": "canary", "canary": {"steps": steps}}
        assert decode_spec(made["spec"]) == decode_spec(asked)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"strategy": "rolling"}, "spec.workload"),
        ({"workload": "Web!"}, "spec.workload"),
        ({"workload": "web", "strategy": "bluegren"}, "spec.strategy"),
        ({"workload": "web", "progressSeconds": 0}, "spec.progressSeconds"),
        ({"workload": "web", "images": {"a": "b"}, "template": {"spec": {}}}, "spec.images"),
        ({"workload": "web", "strategy": "canary"}, "spec.canary"),
        ({"workload": "web", "canary": {"steps": [{"weight": 101}]}}, "spec.canary.steps[0].weight"),
        ({"workload": "web", "canary": {"steps": [{"weight": 50}, {"weight": 20}]}}, "spec.canary.steps"),
        ({"workload": "web", "canary": {"steps": [{"weight": 5, "header": "a=b"}]}}, "spec.canary.steps"),
        ({"workload": "web", "canary": {"router": "traefik"}}, "spec.canary.route"),
        ({"workload": "web", "canary": {"analysis": [{"name": "a", "kind": "http"}]}}, "spec.canary.analysis[0].url"),
        (
            {"workload": "web", "bluegreen": {"analysis": [{"name": "a", "kind": "http", "when": "after"}]}},
            "spec.bluegreen.analysis[0].url",
        ),
        (
            {"workload": "web", "bluegreen": {"analysis": [{"name": "a", "kind": "http", "url": "http://a"}]}},
            "spec.bluegreen.analysis[0].when",
        ),
        (
            {
                "workload": "web",
                "bluegreen": {"analysis": [{"name": "a", "kind": "http", "url": "http://a", "when": "after"}] * 2},
            },
            "spec.bluegreen.analysis[1]",
        ),
        ({"workload": "web", "rainbow": {"cap": 1}}, "spec.rainbow.cap"),
        (
            {
                "workload": "web",
                "rainbow": {"analysis": [{"name": "a", "kind": "http", "url": "http://a", "when": "after"}]},
            },
            "spec.rainbow.service",
        ),
        ({"workload": "web", "strateggy": "canary"}, "spec.strateggy"),
    ],
)
async def test_a_spec_that_is_wrong_is_refused_with_the_path_of_the_field(quiet_cluster, spec, path):
    async with defined(quiet_cluster) as api:
        said = await answered(api, spec)
        assert said is not None and path in said, said
        assert judged(spec) is not None


async def test_the_server_s_rules_and_ours_are_the_same(quiet_cluster):
    async with defined(quiet_cluster) as api:
        rng = random.Random(0)
        specs = [some_spec(rng) for _ in range(400)]
        differing, taken = [], 0
        for spec in specs:
            ours, theirs = judged(spec), await answered(api, spec)
            taken += ours is None
            if (ours is None) != (theirs is None):
                differing.append((spec, ours, theirs))
        assert differing == []
        assert 40 < taken < 360, "of both kinds enough"


async def test_the_workload_of_a_release_cannot_be_changed(quiet_cluster):
    async with defined(quiet_cluster) as api:
        await api.create(RELEASES, release({"workload": "web"}, "fixed"), NS)
        with pytest.raises(ApiError, match="make another Release"):
            await api.patch(RELEASES, "fixed", Patch({"spec": {"workload": "other"}}), NS)


async def test_status_is_a_subresource_and_columns_are_printed(quiet_cluster):
    async with defined(quiet_cluster) as api:
        await api.create(RELEASES, release({"workload": "web"}, "printed"), NS)
        body = {"phase": "halted", "reason": "why", "revision": "r2", "ready": "1/3"}
        await api.patch(
            RELEASES, "printed", Patch({"status": body, "spec": {"paused": True}}, subresource="status"), NS
        )
        stored = await api.get(RELEASES, "printed", NS)
        assert stored["status"] == body and stored["spec"]["paused"] is False
        assert stored["metadata"]["generation"] == 1
        accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        answer = await api.request(Request("GET", RELEASES.path(NS, "printed"), (), accept))
        table = msgspec.json.decode(await answer.read())
        names = [one["name"] for one in table["columnDefinitions"]]
        assert names == ["Name", "Workload", "Strategy", "Phase", "Revision", "Ready", "Reason", "Age"]
        assert table["rows"][0]["cells"][:7] == ["printed", "web", "rolling", "halted", "r2", "1/3", "why"]


def some_spec(rng):
    """A spec that may be right or wrong in any of its fields, more often right in most."""

    def one(*right, wrong=()):
        return rng.choice(wrong) if wrong and rng.random() < 0.08 else rng.choice(right)

    spec = {"workload": one("web", "a.b-c", "x" * 63, wrong=("", "Web", "-a", "a/b", "x" * 64))}
    if rng.random() < 0.8:
        spec["strategy"] = one("rolling", "canary", "bluegreen", "rainbow", wrong=("blue", ""))
    if rng.random() < 0.3:
        spec["images"] = one({"app": "img:2"}, {}, wrong=({"app": 3},))
    if rng.random() < 0.15:
        spec["template"] = one({"spec": {"containers": []}}, {}, wrong=("text",))
    for name, values, wrong in (
        ("progressSeconds", (600, 0.5), (0, -1, "9")),
        ("promoted", (0, 3), (-1,)),
        ("wish", ("", "abort"), ("stop",)),
        ("ungated", ("drain", "proceed"), ("keep",)),
        ("paused", (True, False), ("yes",)),
        ("retire", ([], ["r1"]), ("r1", [1])),
    ):
        if rng.random() < 0.2:
            spec[name] = one(*values, wrong=wrong)
    if rng.random() < 0.2:
        spec["rainbow"] = {"cap": one(2, 20, 7, wrong=(1, 21)), "idleSeconds": one(0, 5, wrong=(-1,))}
        spec["rainbow"]["analysis"] = [some_analysis(one, True) for _ in range(rng.randrange(0, 3))]
        if rng.random() < 0.8:
            spec["rainbow"]["service"] = one("web", wrong=("",))
    if rng.random() < 0.2:
        spec["bluegreen"] = {
            "keepSeconds": one(None, 0, 60, wrong=(-5,)),
            "promote": one("auto", "manual", wrong=("x",)),
            "service": one("web", wrong=("",)),
            "preview": one("", "web-next", wrong=("web",)),
            "by": one("", "version", "a.b/c", wrong=("-x", "a/b/c")),
            "name": one("", "web-green", wrong=("Web",)),
            "analysis": [some_analysis(one, True) for _ in range(rng.randrange(0, 3))],
        }
    if rng.random() < 0.6:
        weights = sorted(rng.randrange(0, 101) for _ in range(rng.randrange(0, 5)))
        if rng.random() < 0.1:
            weights.reverse()
        router = one("replicas", "httproute", "traefik", wrong=("nginx",))
        canary = {"steps": [{"weight": weight} for weight in weights], "router": router}
        for step in canary["steps"]:
            if rng.random() < 0.2:
                step["pauseSeconds"] = one(None, 0, 30, wrong=(-1,))
            if rng.random() < 0.1:
                step["header"] = one("", "beta=1")
        if rng.random() < 0.8:
            canary["route"] = one("web", wrong=("",))
        if rng.random() < 0.4:
            canary["analysis"] = [some_analysis(one) for _ in range(rng.randrange(1, 3))]
        spec["canary"] = canary
    return spec


def some_analysis(one, is_of_flip=False):
    kind = one("prometheus", "http", "command", wrong=("job",))
    found = {
        "name": one("a", "b", "c"),
        "kind": kind,
        "count": one(1, 3, wrong=(0,)),
        "intervalSeconds": one(1, 10, wrong=(0,)),
    }
    if one(True, wrong=(False,)):
        found |= {"when": one("before", "after", wrong=("later",))} if is_of_flip else {}
        found |= {"url": "http://prometheus:9090", "query": "up", "success": ">= 1", "command": ["true"]}
    return found
