"""How pods ended: what was written on each before it went, for a release to judge its drains by."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from tidegate import vtime
from tidegate.client.release.look import maker_uid
from tidegate.kube.api import JsonObject
from tidegate.model import pod
from tidegate.model.decode import Malformed
from tidegate.model.names import NO_RECORD, decode_result
from tidegate.model.pod import Pod

UNGATED = "ungated: it had no gate, so nobody waited"
ABORTED_START = "verified: it never was ready, so nobody sent to it"


@dataclass(frozen=True, slots=True)
class _End:
    name: str
    how: str
    at: float
    maker: str


class Endings:
    """Of pods that a watch has seen go. Subscribe ``saw`` to a reflector of pods."""

    def __init__(self) -> None:
        self._gone: dict[str, _End] = {}
        """By uid."""
        self._alive: set[str] = set()
        self._was_ready: set[str] = set()

    @property
    def of_round(self) -> Mapping[str, str]:
        """Pod -> how it ended, of all that were seen to."""
        return self.since(0.0)

    def since(self, at: float, makers: Container[str] | None = None) -> Mapping[str, str]:
        """Of those that went after ``at`` (seconds since 1970): what ended before a release is not its own, nor is what
        another controller than ``makers`` (uids) had made."""
        return {
            one.name: one.how for one in self._gone.values() if one.at >= at and (makers is None or one.maker in makers)
        }

    def has_seen(self, uid: str) -> bool:
        """Whether the watch knows that pod: its end will be told, or was."""
        return uid in self._alive or uid in self._gone

    def was_ready(self, uid: str) -> bool:
        """Whether a pod that is there was ever seen ready."""
        return uid in self._was_ready

    def saw(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """One change of one pod."""
        try:
            before = pod.decode(old) if old is not None else None
            if new is not None:
                found = pod.decode(new)
                self._alive.add(found.uid)
                if found.is_ready:
                    self._was_ready.add(found.uid)
                return
        except Malformed:
            return
        if before is not None:
            self._gone[before.uid] = _End(
                before.name, self._ending(before), vtime.now().timestamp(), maker_uid(old or {})
            )
            self._alive.discard(before.uid)
            self._was_ready.discard(before.uid)

    def _ending(self, one: Pod) -> str:
        try:
            result = decode_result(one.annotations)
        except Malformed:
            result = None
        if result is not None:
            return str(result)
        if one.uid not in self._was_ready:
            return ABORTED_START
        return str(NO_RECORD) if one.gated else UNGATED
