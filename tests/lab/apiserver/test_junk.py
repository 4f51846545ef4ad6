"""Whatever is sent, the server answers with a Status: junk in a body is the sender's fault, never a crash."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from .api_world import (
    CONFIGMAP,
    DEPLOYMENT,
    JSON_PATCH,
    MERGE,
    POD,
    SERVICE,
    STRATEGIC,
    TABLE,
    World,
    configmap,
    deployment,
    pod,
    story,
)

JUNK: list[Any] = [
    None, True, 0, -1, 1.5, "", "x", "x" * 300, [], {}, [None], [{}], {"a": None}, {"a": {}}, ["a"], 1 << 40, "10%",
]  # fmt: skip
MERGE_KEY_MISSING = b"does not contain declared merge key"
"""The one junk the real server answers with a 500, too."""


def _rich_pod() -> dict[str, Any]:
    rich = pod(tolerations=[{"key": "a"}], volumes=[{"name": "v", "emptyDir": {}}])
    rich["metadata"] |= {"annotations": {"a": "b"}, "finalizers": ["a.b/c"]}
    rich["spec"]["containers"][0] |= {
        "ports": [{"containerPort": 80, "name": "x"}],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "resources": {"limits": {"cpu": "1"}},
        "readinessProbe": {"httpGet": {"port": 80}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
        "volumeMounts": [{"name": "v", "mountPath": "/x"}],
    }
    return rich


def _service() -> dict[str, Any]:
    ports = [{"port": 80, "name": "a"}, {"port": 81, "name": "b", "nodePort": 30001}]
    spec = {"type": "NodePort", "ports": ports, "selector": {"a": "b"}, "sessionAffinity": "ClientIP"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}


MAKERS = [(POD, _rich_pod), (DEPLOYMENT, deployment), (SERVICE, _service), (CONFIGMAP, lambda: configmap(a="b"))]


def _spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from _spots(item, (*path, key))


def _spoilt(rng: random.Random, obj: Any) -> Any:
    path = rng.choice(list(_spots(obj)))
    place = obj
    for key in path[:-1]:
        place = place[key]
    if rng.random() < 0.3:
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(rng.choice(JUNK))
    return obj


@pytest.mark.parametrize("seed", range(4))
def test_junk_is_answered(seed):
    async def tell(world: World) -> None:
        rng = random.Random(seed)

        async def send(method: str, target: str, body: Any, **headers: str) -> None:
            answer = await world.ask(method, target, body, **headers)
            assert answer.status < 500 or MERGE_KEY_MISSING in answer.raw, (seed, method, target, body, answer.raw)

        for _ in range(80):
            path, make = rng.choice(MAKERS)
            one = f"{path}/{make()['metadata']['name']}"
            await send("POST", path, _spoilt(rng, make()))
            await send("POST", path, make())
            await send("PUT", one + rng.choice(["", "", "/status"]), _spoilt(rng, make()))
            await send("PATCH", one, _spoilt(rng, make()), content_type=rng.choice([MERGE, STRATEGIC]))
            pointer = "/" + "/".join(str(key) for key in rng.choice(list(_spots(make()))))
            kind = rng.choice(["add", "remove", "replace", "test", "copy", "move", "zz"])
            operation = {"op": kind, "path": pointer, "value": rng.choice(JUNK), "from": "/metadata"}
            await send("PATCH", one, [operation], content_type=JSON_PATCH)
            await send("GET", path, None, accept=TABLE)
            await send("DELETE", one, _spoilt(rng, {"gracePeriodSeconds": 0, "preconditions": {"uid": "x"}}))
            await send("PATCH", one, {"metadata": {"finalizers": None}}, content_type=MERGE)
            await send("DELETE", one, {"gracePeriodSeconds": 0})

    story(tell)


@pytest.mark.parametrize(
    "target",
    [
        "?limit=x",
        "?resourceVersion=x",
        "?continue=x",
        "?labelSelector=%3D",
        "?watch=1&timeoutSeconds=x",
    ],
)
def test_junk_in_a_query_is_answered(target):
    async def tell(world: World) -> None:
        response = await world.send("GET", POD + target)
        assert response.status in (200, 400)
        await response.close()

    story(tell)
