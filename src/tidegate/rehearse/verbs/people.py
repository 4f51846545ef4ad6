"""People at work on the same pods at once, and those who scale, update and delete beside them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace

from tidegate.client import VerbOptions
from tidegate.kube.api import DEPLOYMENTS, NODES, PODS, SERVICES, Api, JsonObject, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.model.names import HELD, PREPARED
from tidegate.rehearse.spectator import is_ready
from tidegate.rehearse.verbs.deeds import End, Shell, Wish
from tidegate.rehearse.verbs.scene import NS, Scene

PAUSE_SECONDS = (0.1, 5.0)


class People:
    """``by_hand`` counts what kubectl did. ``cordoned`` are the nodes that a drain may have cordoned."""

    def __init__(self, api: Api, shell: Shell, scene: Scene, rng: random.Random, nodes: tuple[str, ...]) -> None:
        self.by_hand: list[str] = []
        self.cordoned: list[str] = []
        self._api = api
        self._shell = shell
        self._scene = scene
        self._rng = rng
        self._nodes = nodes

    async def person(self, verbs: int) -> None:
        """One person's day: so many verbs, one after the other."""
        rng = self._rng
        for _ in range(verbs):
            await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
            if not self._scene.is_steady and rng.random() < 0.2:
                await self._by_hand()
                continue
            wish = await self._wish()
            if wish is None:
                continue
            end: End = rng.choice(("kill", "kill", "interrupt", "", "", "", "", ""))
            deed = await self._shell.type(wish, end)
            if deed.word == "failed" or (deed.word in ("killed", "interrupted") and rng.random() < 0.6):
                await asyncio.sleep(rng.uniform(0, 20.0))
                await self._shell.type(wish)
            if wish.verb == "drain-node":
                await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
                await self.uncordon(wish.target)

    def options(self, timeout_seconds: float) -> VerbOptions:
        """As most people type it."""
        return VerbOptions(timeout_seconds=timeout_seconds, floor=self._scene.floor, app_stop_seconds=70.0)

    async def uncordon(self, name: str) -> None:
        """``kubectl uncordon``."""
        with contextlib.suppress(ApiError):
            await self._api.patch(NODES, name, Patch({"spec": {"unschedulable": False}}))

    async def _wish(self) -> Wish | None:
        rng = self._rng
        listed = (await self._api.list(PODS, Selection(NS))).items
        pods = sorted((one for one in listed if "deletionTimestamp" not in one["metadata"]), key=_name)
        held = [one for one in pods if HELD in (one["metadata"].get("labels") or {})]
        free = [one for one in pods if one not in held and is_ready(one)]
        if held and rng.random() < 0.5:
            name = _name(rng.choice(held))
            verb = rng.choice(("restore", "restore", "restore", "drain", "cut", "sever"))
        elif free:
            name = _name(rng.choice(free))
            verb = rng.choice(
                ("cut", "cut", "cut", "isolate", "sever", "drain", "drain", "drain-deploy", "drain-node", "prepare")
            )
        else:
            return None
        return await self._chosen(verb, name)

    async def _chosen(self, verb: str, name: str) -> Wish:
        """``verb`` with options; those of more than one pod choose their own target."""
        rng = self._rng
        options = self.options(rng.choice((8.0, 20.0, 45.0)))
        match verb:
            case "cut":
                services = (rng.choice(sorted(self._scene.services)),) if rng.random() < 0.25 else ()
                options = replace(options, services=services, on_deadline=rng.choice(("hold", "hold", "restore")))
                return Wish("cut", name, replace(options, replace=rng.choice((None, None, True))))
            case "drain":
                options = replace(options, on_deadline=rng.choice(("hold", "hold", "restore", "proceed")))
                return Wish("drain", name, replace(options, replace=rng.choice((None, None, False))))
            case "isolate":
                return Wish("isolate", name, options)
            case "sever":
                return Wish("sever", name, options)
            case "restore":
                return Wish("restore", name, options)
            case "drain-deploy":
                return Wish("drain-deploy", rng.choice(sorted(self._scene.replicas)), self.options(45.0))
            case "drain-node":
                target = rng.choice(self._nodes)
                self.cordoned.append(target)
                return Wish("drain-node", target, self.options(30.0))
            case _:
                return await self._preparation()

    async def _preparation(self) -> Wish:
        rng = self._rng
        service = rng.choice(sorted(self._scene.services))
        obj = await self._api.get(SERVICES, service, NS)
        is_begun = PREPARED in (obj["metadata"].get("annotations") or {})
        names = self.deployments_of(service)
        in_place = self._scene.is_steady or rng.random() < 0.5
        return Wish("prepare", service, self.options(60.0), names, in_place, is_begun and rng.random() < 0.6)

    def deployments_of(self, service: str) -> tuple[str, ...]:
        """Whose pods the Service selects."""
        return ("echo",) if service == "echo" else tuple(self._scene.replicas)

    async def _by_hand(self) -> None:
        rng = self._rng
        name = rng.choice(sorted(self._scene.replicas))
        what = rng.choice(("scale", "image", "delete"))
        self.by_hand.append(what)
        with contextlib.suppress(ApiError):
            if what == "scale":
                replicas = rng.choice((2, 3, 4))
                self._scene.replicas[name] = replicas
                await self._api.patch(DEPLOYMENTS, name, Patch({"spec": {"replicas": replicas}}), NS)
            elif what == "image":
                container = {"name": "echo", "image": f"tidegate/echo:{rng.choice(('v1', 'v2'))}"}
                spec = {"spec": {"template": {"spec": {"containers": [container]}}}}
                await self._api.patch(DEPLOYMENTS, name, Patch(spec, "strategic"), NS)
            else:
                pods = sorted((await self._api.list(PODS, Selection(NS, f"app={name}"))).items, key=_name)
                if pods:
                    await self._api.delete(PODS, _name(rng.choice(pods)), NS)


def _name(obj: JsonObject) -> str:
    return str(obj["metadata"]["name"])
