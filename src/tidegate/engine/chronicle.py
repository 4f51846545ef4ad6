"""Hears a drain out and writes it into the ledger: one line at its conclusion, another for what is seen later.

It only listens: nothing of a drain waits for it, and nothing it cannot do stops one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType

import msgspec

from tidegate import vtime
from tidegate.dataplane.sockets import Quiet
from tidegate.drain.event import Cut, Event
from tidegate.drain.ledger import REGRESSIONS_MAX, Course, Subject, amendment, as_text, entry_of, hear
from tidegate.drain.progress import Drain
from tidegate.engine.ledger import Ledger
from tidegate.engine.settle import UNFENCED
from tidegate.model.names import DrainResult, Ending

InFlight = Callable[[], Awaitable[Quiet]]
INTERRUPTED = "interrupted"
FAILED = "failed"


class Chronicle:
    """Of one run of one verb on one pod. As a context manager it writes down what broke off, too."""

    def __init__(self, subject: Subject, ledger: Ledger) -> None:
        self.subject = replace(subject, began=subject.began or as_text(vtime.now().timestamp()))
        self._ledger = ledger
        self._in_flight: InFlight | None = None
        self._course = Course()
        self._drain: Drain | None = None
        self._result: DrainResult | None = None
        self._known: tuple[str, ...] = ()
        self._reading: asyncio.Task[None] | None = None

    def follow(self, in_flight: InFlight | None) -> Callable[[Drain, Event], None]:
        """Whom to tell every event of the drain; ``in_flight`` reads the pod's connections, once, at the cut."""
        self._in_flight = in_flight
        return self.heard

    def heard(self, drain: Drain, event: Event) -> None:
        """One event, and what it led to. After the conclusion what contradicts it is written at once."""
        self._course, self._drain = hear(self._course, drain, event), drain
        if isinstance(event, Cut) and self._in_flight is not None and self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read(self._in_flight), name="ledger: the cut")
        if self._result is None:
            return
        result = drain.result or self._result
        is_late_proof = result.result is not self._result.result and drain.result is not None
        is_regression = drain.regressions != self._known and len(drain.regressions) <= REGRESSIONS_MAX
        if is_late_proof or is_regression:
            self.amend(result if is_late_proof else self._result, drain.regressions)

    def conclude(self, result: DrainResult, drain: Drain | None = None) -> None:
        """Write the line. A refusal has changed nothing and leaves none."""
        if self._reading is not None:
            self._reading.cancel()
        if self._result is not None or (result.result is Ending.REFUSED and self._course.cut_at is None):
            return
        self._drain = drain or self._drain
        self._result = result
        self._known = () if self._drain is None else self._drain.regressions
        self._write()

    def amend(self, result: DrainResult, regressions: tuple[str, ...] = ()) -> None:
        """Write what has changed since the line."""
        self._result, self._known = result, regressions
        self._ledger.write(amendment(self.subject, result, regressions, vtime.now().timestamp()))

    @property
    def is_concluded(self) -> bool:
        """Whether its line is written."""
        return self._result is not None

    def __enter__(self) -> Chronicle:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        del kind, at
        if self._reading is not None:
            self._reading.cancel()
        if error is None or self._result is not None or self._course.cut_at is None:
            return
        is_interrupted = not isinstance(error, Exception)
        self._result = DrainResult(Ending.BYPASSED, str(error) or "the process was told to stop")
        self._write(INTERRUPTED if is_interrupted else FAILED)

    def _write(self, word: str = "") -> None:
        assert self._result is not None
        clock = (asyncio.get_running_loop().time(), vtime.now().timestamp())
        entry = entry_of(self.subject, self._course, self._drain, self._result, clock)
        if self._drain is not None and self._drain.epoch is not None and self._drain.epoch.install == UNFENCED.install:
            entry = msgspec.structs.replace(entry, epoch="")  # no data plane showed it
        self._ledger.write(msgspec.structs.replace(entry, result=word) if word else entry)

    async def _read(self, in_flight: InFlight) -> None:
        self._course = replace(self._course, at_cut=await in_flight())
