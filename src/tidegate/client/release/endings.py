"""How pods ended: what was written on each before it went, for a release to judge its drains by."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate import vtime
from tidegate.kube.api import JsonObject
from tidegate.model import pod
from tidegate.model.decode import Malformed
from tidegate.model.names import NO_RECORD, decode_result
from tidegate.model.pod import Pod

UNGATED = "ungated: it had no gate, so nobody waited"
ABORTED_START = "verified: it never was ready, so nobody sent to it"


class Endings:
    """Of pods that a watch has seen go. Subscribe ``saw`` to a reflector of pods."""

    def __init__(self) -> None:
        self._gone: dict[str, tuple[str, float]] = {}
        self._was_ready: set[str] = set()

    @property
    def of_round(self) -> Mapping[str, str]:
        """Pod -> how it ended, of all that were seen to."""
        return self.since(0.0)

    def since(self, at: float) -> Mapping[str, str]:
        """Of those that went after ``at`` (seconds since 1970): what ended before a release is not its own."""
        return {name: how for name, (how, gone_at) in self._gone.items() if gone_at >= at}

    def saw(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """One change of one pod."""
        try:
            before = pod.decode(old) if old is not None else None
            if new is not None:
                found = pod.decode(new)
                if found.is_ready:
                    self._was_ready.add(found.uid)
                return
        except Malformed:
            return
        if before is not None:
            self._gone[before.name] = (self._ending(before), vtime.now().timestamp())
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
