"""A virtual lab with operators in it, and the Releases that they carry out.

``Hand`` is one operator process: ended in order, or killed (nothing of it runs on, nothing is given back).
"""

from __future__ import annotations

import asyncio
import contextlib
import json

from stage import NS
from stage import play as play_on_stage

from tidegate.kube.api import CUSTOMRESOURCEDEFINITIONS, DRAINS, OBSERVERS, RELEASES, Deletion, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, Unreachable
from tidegate.operator.crds import manifests
from tidegate.operator.logs import Log
from tidegate.operator.process import ProcessSettings, serve


async def served(stage, is_strict=True):
    """Until the lab's API server has our kinds; not ``is_strict``: it takes any spec, as an older definition might."""
    for one in manifests():
        if not is_strict:
            properties = one["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
            properties["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        await stage.client.create(CUSTOMRESOURCEDEFINITIONS, one)
    for kind in (RELEASES, DRAINS, OBSERVERS):
        while True:
            with contextlib.suppress(ApiError):
                await stage.client.list(kind)
                break
            await asyncio.sleep(0.1)


_NO_WRITES = ("/leases", "/events", "/proxy/", "/token", "accessreviews")
"""What is asked by POST, and what nobody goes on from."""


class Wire:
    """The way of one operator to the API. ``kill_at``: after that many writes it is killed. ``fault(request)`` may
    raise instead."""

    def __init__(self, exchange, kill_at=None):
        self.exchange, self.kill_at = exchange, kill_at
        self.writes = []
        self.is_cut = False
        self.killed = asyncio.Event()
        self.fault = None

    async def __call__(self, request):
        if self.is_cut:
            raise Unreachable("of a process that is gone nothing is heard")
        if self.fault is not None:
            await self.fault(request)
        answer = await self.exchange(request)
        is_write = request.method not in ("GET", "HEAD") and not any(one in request.path for one in _NO_WRITES)
        if is_write:
            self.writes.append(f"{request.method} {request.path}")
            if self.kill_at is not None and len(self.writes) >= self.kill_at:
                self.is_cut = True
                self.killed.set()
                await asyncio.Event().wait()
        return answer


class Hand:
    """One operator process on a stage."""

    def __init__(self, stage, name="operator-a", kill_at=None, port=18081):
        self.stage, self.name = stage, name
        self.wire = Wire(stage.lab.lab.exchange, kill_at)
        self.lines = []
        self.stop = asyncio.Event()
        settings = ProcessSettings(name, host="127.0.0.1", health_port=port, metrics_port=port)
        coming = serve(KubeClient(self.wire, "lab"), settings, Log(self.lines.append), self.stop)
        self.task = asyncio.create_task(coming)

    @property
    def log(self):
        return [json.loads(line) for line in self.lines]

    async def leave(self):
        """SIGTERM, and its end."""
        self.stop.set()
        await self.task

    async def kill(self):
        """SIGKILL."""
        self.wire.is_cut = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def release(spec=None, name="echo", namespace=NS, **fields):
    return {
        "apiVersion": RELEASES.api_version,
        "kind": "Release",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"workload": "echo", **(spec or {}), **fields},
    }


async def asked(stage, name="echo", **fields):
    """Make the Release, or change its spec."""
    try:
        return await stage.client.create(RELEASES, release(name=name, **fields), NS)
    except ApiError as error:
        if not error.is_conflict:
            raise
        return await stage.client.patch(RELEASES, name, Patch({"spec": fields}), NS)


async def seen(stage, name="echo"):
    return await stage.client.get(RELEASES, name, NS)


async def until(stage, phase, within=180.0, name="echo"):
    """The Release once its phase is ``phase``, about the spec as it is."""
    began = stage.now
    while stage.now - began < within:
        obj = await seen(stage, name)
        status = obj.get("status") or {}
        if status.get("phase") == phase and status.get("generation") == obj["metadata"]["generation"]:
            return obj
        await asyncio.sleep(0.1)
    raise AssertionError(f"not {phase} within {within} s: {json.dumps(status)[:600]}")


async def deleted(stage, name="echo", within=60.0):
    """Delete the Release and wait until it is gone."""
    began = stage.now
    await stage.client.delete(RELEASES, name, NS, Deletion())
    while stage.now - began < within:
        try:
            await seen(stage, name)
        except ApiError as error:
            assert error.is_not_found
            return stage.now - began
        await asyncio.sleep(0.1)
    raise AssertionError("its finalizer never went")


def condition(obj, kind):
    return next((one for one in obj["status"]["conditions"] if one["type"] == kind), None)


def play(story, manifest=None, seed=0, limit=900, is_strict=True, **options):
    """Run ``async def story(stage)`` in a lab of its own with the kinds served."""

    async def whole(stage):
        await served(stage, is_strict)
        return await story(stage)

    return play_on_stage(whole, manifest, seed, limit, **options)
