"""Pods that a release had begun to drain by label, and whose engine went: let go by their owner, they are nobody's.

Their twins stand in for them already, so each is drained to its end, as the next run of the same verb would. Else a
release that is deleted, or an operator that is killed, would leave pods behind that serve nobody and that nobody ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.client.drain import drain_pod
from tidegate.client.options import Identity, VerbOptions
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.decode import Malformed
from tidegate.model.names import HELD, Ending, decode_drain

BY = "tidegate "
"""How an operator signs; a person's word has no space (user@host)."""
DRAIN_SECONDS = 300.0
_GONE = (Ending.VERIFIED, Ending.VERIFIED_EXCEPT, Ending.ASSUMED, Ending.FORCED)


class Finishing:
    """``finish`` begins what is to be ended and says what is left; ``told`` hears of what would not end."""

    def __init__(self, client: KubeClient, identity: Callable[[], Identity], ledger: Ledger | None) -> None:
        self._client, self._identity, self._ledger = client, identity, ledger
        self._tasks: dict[str, asyncio.Task[str]] = {}
        self._failed: dict[str, str] = {}

    async def finish(self, namespace: str, workload: str) -> int:
        """How many pods of ``workload`` are on their way to their end. Raises ``KubeError``."""
        count = 0
        for obj in await _left(self._client, namespace, workload):
            uid, name = str(obj["metadata"]["uid"]), str(obj["metadata"]["name"])
            task = self._tasks.get(uid)
            if task is None and uid not in self._failed:
                task = asyncio.get_running_loop().create_task(self._drained(namespace, name), name=f"finish {name}")
                self._tasks[uid] = task
                task.add_done_callback(lambda done, uid=uid: self._ended(uid, done))  # type: ignore[misc]
            count += task is not None
        return count

    def stuck(self) -> tuple[str, ...]:
        """What would not end, a sentence each; told once."""
        told = tuple(self._failed[uid] for uid in sorted(self._failed) if self._failed[uid])
        self._failed = dict.fromkeys(self._failed, "")
        return told

    async def stop(self) -> None:
        """Nothing of it goes on; the next one does."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._failed.clear()

    async def _drained(self, namespace: str, name: str) -> str:
        """Why it did not come to its end, "" where it did."""
        why = "begun by a release that went"
        options = VerbOptions(DRAIN_SECONDS, identity=self._identity(), ledger=self._ledger, reason=why)
        try:
            result = await drain_pod(self._client, namespace, name, options)
        except ApiError as error:
            return "" if error.is_not_found else f"pod/{name} is held, and was not drained: {error}"
        return "" if result.result in _GONE else f"pod/{name} is held, and was not drained: {result}"

    def _ended(self, uid: str, task: asyncio.Task[str]) -> None:
        self._tasks.pop(uid, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is None and task.result():
            self._failed[uid] = task.result()
        elif error is not None and not isinstance(error, KubeError):
            self._failed[uid] = f"{type(error).__name__}: {error}"


async def _left(client: KubeClient, namespace: str, workload: str) -> list[JsonObject]:
    found = []
    for obj in (await client.list(PODS, Selection(namespace, HELD))).items:
        try:
            record = decode_drain(obj["metadata"].get("annotations") or {})
        except Malformed:
            continue
        if record is None or record.verb != "drain" or not record.by.startswith(BY):
            continue
        if record.owner.startswith(f"ReplicaSet/{workload}-") and "deletionTimestamp" not in obj["metadata"]:
            found.append(obj)
    return found
