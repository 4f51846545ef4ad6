"""Says of each Observer object whether it is asked: the condition ``Accepted``, with the field's path if it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate import vtime
from tidegate.engine.act import instant
from tidegate.kube.api import OBSERVERS, Api, JsonObject, Patch
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Reflector
from tidegate.observers import config
from tidegate.operator.conditions import Word, dated
from tidegate.vtime import Nursery

RETRY_SECONDS = 5.0
NO_KIND_SECONDS = 60.0


class ObserverStatus:
    """``await run()`` keeps the conditions for ever. ``reader`` watches, ``writer`` is fenced."""

    def __init__(self, reader: Api, writer: Api, may_write: Callable[[], bool]) -> None:
        self._reader, self._writer, self._may_write = reader, writer, may_write
        self._copy = Reflector(reader, OBSERVERS)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                await self._reader.list(OBSERVERS)
                break
            except KubeError as error:
                has_no_kind = isinstance(error, ApiError) and error.is_not_found
                await asyncio.sleep(NO_KIND_SECONDS if has_no_kind else RETRY_SECONDS)
        self._copy.subscribe(lambda old, new: self._changed.set())
        async with Nursery() as nursery:
            nursery.start(self._copy.run(), name="observers")
            await self._copy.synced()
            while True:
                self._changed.clear()
                if not await self._said():
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                await self._changed.wait()

    async def _said(self) -> bool:
        """Write what is to be written; False where that could not be."""
        is_done = True
        for _, obj in sorted(self._copy.objects.items()):
            wanted = _conditions(obj)
            if wanted == ((obj.get("status") or {}).get("conditions") or []):
                continue
            if not self._may_write():
                return False
            try:
                body = {"metadata": {"uid": obj["metadata"]["uid"]}, "status": {"conditions": wanted}}
                await self._writer.patch(OBSERVERS, obj["metadata"]["name"], Patch(body, "merge", "status"))
            except KubeError:
                is_done = False
        return is_done


def _conditions(obj: JsonObject) -> list[JsonObject]:
    metadata = obj["metadata"]
    try:
        config.of_object(str(metadata["name"]), obj.get("spec"))
        found = ("True", Word("Valid"))
    except config.ConfigError as error:
        found = ("False", Word("Invalid", str(error)))
    before = (obj.get("status") or {}).get("conditions") or []
    return dated({"Accepted": found}, before, instant(vtime.now()), int(metadata.get("generation") or 0))
