"""One look at one Release: the same engine as the command line's, told where to read, write and remember.

What rests costs nothing: a Release at its end is looked at again when its spec or its Deployment changes. What is under
way is looked at when an object of its workload changes, and every few seconds besides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tidegate.client.options import Identity
from tidegate.client.release.book import Entry
from tidegate.client.release.ground import Ground
from tidegate.client.release.run import Engine, Turn
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import JsonObject
from tidegate.kube.client import KubeClient
from tidegate.kube.reflector import Key
from tidegate.operator import farewell
from tidegate.operator.book import FINALIZER, ObjectBook
from tidegate.operator.conditions import Word
from tidegate.operator.events import Kind, Recorder
from tidegate.operator.finishing import BY, Finishing
from tidegate.operator.territory import Plot, Territories
from tidegate.operator.watch import ReleaseSeen
from tidegate.release.plan import Decision
from tidegate.release.record import Phase
from tidegate.release.spec import Analysis, Invalid, Spec

STEP_SECONDS = 0.5
"""After steps, and while observers are asked: as the command line's engine."""
WAY_SECONDS = 5.0
"""Of one that is under way though none of its objects changed: time passes, too."""
REST_SECONDS = 30.0
HELD_SECONDS = 5.0
PREFIX = "operator/"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``word`` for metrics and logs; look again after ``seconds``, None for at rest."""

    word: str
    seconds: float | None = None


@dataclass(slots=True)
class _Run:
    """One Release under way."""

    book: ObjectBook
    workload: str
    engine: Engine | None = None
    plot: Plot | None = None
    turn: Turn | None = None


@dataclass(slots=True)
class Reconciler:
    """``client`` is fenced: it writes only while this process leads. ``family`` are the Releases
    of one workload (namespace, name)."""

    client: KubeClient
    identity: str
    territories: Territories
    recorder: Recorder
    family: Callable[[str, str], list[ReleaseSeen]]
    may_write: Callable[[], bool]
    rng: random.Random
    ledger: Ledger | None = None
    _runs: dict[Key, _Run] = field(default_factory=dict)
    _finishing: Finishing = field(init=False)

    def __post_init__(self) -> None:
        self._finishing = Finishing(self.client, self._identity, self.ledger)

    async def look(self, key: Key) -> Outcome:
        """Raises ``KubeError``, ``HeldByOther``."""
        run = self._runs.get(key)
        book = run.book if run is not None else self._book(key)
        try:
            entry = await book.read()
        except ValueError as error:
            return await self._refused(key, book, error)
        if entry is None:
            await self.drop(key)
            return Outcome("gone")
        if entry.is_leaving:
            return await self._left(key, book, entry.spec.workload, entry.status.phase)
        told = _not_here(entry.spec)
        if told:
            await self.drop(key)
            await self._say(book, Word("Invalid", told))
            return Outcome("invalid")
        rival = self._rival(key, entry)
        if rival:
            await self.drop(key)
            why = f"$.spec.workload: release/{rival} is about deployment/{entry.spec.workload} already, and is older"
            await self._say(book, Word("NotAlone", why))
            return Outcome("not-alone", REST_SECONDS)
        if FINALIZER not in (book.obj["metadata"].get("finalizers") or ()):
            await book.finalize(True)
        return await self._turned(key, book, entry)

    async def drop(self, key: Key) -> None:
        """Nobody is at work on it any more: what runs beside ends, and its lease is given back."""
        run = self._runs.pop(key, None)
        if run is None:
            return
        self.territories.leave(key[0], run.workload)
        engine, run.engine = run.engine, None  # it tells `run` of its turns: a ring, and all they saw would stay in it
        if engine is not None:
            await engine.leave()

    async def drop_all(self) -> None:
        await asyncio.gather(*(self.drop(key) for key in list(self._runs)))
        await self._finishing.stop()

    def tell(self, key: Key, error: Exception) -> None:
        """Why a step of it came to nothing, to whoever looks at the object: logs are read by others."""
        run = self._runs.get(key)
        if run is not None and run.book.obj:
            self.recorder.write(run.book.obj, "Warning", "Failed", str(error))

    def is_under_way(self, key: Key) -> bool:
        return key in self._runs

    def under_way(self, namespace: str) -> list[Key]:
        return [key for key in self._runs if key[0] == namespace]

    @property
    def stragglers(self) -> int:
        """How many observers releases under way wait for, each counted once for each."""
        turns = [run.turn for run in self._runs.values() if run.turn is not None]
        return sum(
            len({name: None for one in turn.decision.status.asked.values() for name in one.stragglers})
            for turn in turns
        )

    # --- what is not acted on ---

    async def _refused(self, key: Key, book: ObjectBook, error: ValueError) -> Outcome:
        await self.drop(key)
        spec = book.obj.get("spec") or {}
        if "deletionTimestamp" in book.obj["metadata"]:
            phase = str((book.obj.get("status") or {}).get("phase") or "")
            return await self._left(key, book, str(spec.get("workload") or ""), phase)
        if isinstance(error, Invalid):
            await self._say(book, Word("Invalid", "; ".join(error.problems)))
            return Outcome("invalid")
        await self._say(book, Word("StatusUnreadable", f"$.status: no engine wrote this: {error}"))
        return Outcome("invalid")

    async def _say(self, book: ObjectBook, word: Word) -> None:
        before = (book.obj.get("status") or {}).get("reason")
        await book.refuse(word.reason, word.message)
        if before != word.message:
            self.recorder.write(book.obj, "Warning", word.reason, word.message)

    def _rival(self, key: Key, entry: Entry) -> str:
        """Another Release of the same workload that came first: it is the one that acts."""
        family = [one.metadata for one in self.family(key[0], entry.spec.workload)]
        own = next((one for one in family if one.name == key[1]), None)
        if own is None:
            return ""
        age = (own.creation_timestamp, own.name)
        return min((one.name for one in family if (one.creation_timestamp, one.name) < age), default="")

    # --- the end of the object ---

    async def _left(self, key: Key, book: ObjectBook, workload: str, phase: str) -> Outcome:
        await self.drop(key)
        if FINALIZER not in (book.obj["metadata"].get("finalizers") or ()):
            return Outcome("gone")
        told = await farewell.let_go(self.client, key[0], workload, phase) if workload else ()
        if workload and await self._finishing.finish(key[0], workload):
            return Outcome("finishing", STEP_SECONDS)
        for text in (*told, *self._finishing.stuck()):
            self.recorder.write(book.obj, "Warning", "LeftBehind", text)
        await book.finalize(False)
        return Outcome("gone")

    # --- a turn ---

    async def _turned(self, key: Key, book: ObjectBook, entry: Entry) -> Outcome:
        workload = entry.spec.workload
        territory = await self.territories.enter(key[0], workload)
        run = self._runs.setdefault(key, _Run(book, workload))
        if not territory.has_deployment(workload):
            await self._say(book, Word("NoDeployment", f"$.spec.workload: there is no deployment/{workload} yet"))
            await self.drop(key)
            return Outcome("no-deployment")
        if run.engine is None:
            await self._finishing.finish(key[0], workload)
            run.plot = territory.plot(self.client, workload, ())
            ground = Ground(self.client, self._identity(), self.ledger, self.rng.getrandbits(32))
            run.engine = Engine(book, ground, run.plot, territory.endings(workload))
            run.engine.may_write = self.may_write

            def heard(turn: Turn) -> None:
                run.turn = turn

            run.engine.heard = heard
        assert run.plot is not None
        run.plot.services = _services(entry.spec)
        book.is_fresh = True
        decision = await run.engine.turn()
        if run.turn is not None:
            book.ready = _ready(run.turn)
            if not decision.steps:  # else there is another turn in a moment, and one write may say both
                await book.show()
        if decision.is_final and not run.engine.is_busy and not _has_company(run.turn):
            if await self._finishing.finish(key[0], workload):
                return Outcome("finishing", STEP_SECONDS)
            for text in self._finishing.stuck():
                self.recorder.write(book.obj, "Warning", "LeftBehind", text)
            await self.drop(key)
            return Outcome("at-rest")
        return Outcome("looked", _seconds(decision))

    def _book(self, key: Key) -> ObjectBook:
        book = ObjectBook(self.client, *key)
        book.wrote = self._wrote
        return book

    def _wrote(self, obj: JsonObject, old: JsonObject, new: JsonObject) -> None:
        if new.get("phase") != old.get("phase") and new.get("phase") != Phase.PENDING.value:
            kind: Kind = "Warning" if new.get("phase") in (Phase.HALTED.value, Phase.ABORTED.value) else "Normal"
            phase, reason = str(new.get("phase")), str(new.get("reason") or "")
            self.recorder.write(obj, kind, phase.capitalize(), reason or phase)
        before = [one.get("text") for one in old.get("notes") or ()]
        for one in (new.get("notes") or ())[-5:]:
            if one["text"] not in before and not one["text"].startswith(str(new.get("phase"))):
                self.recorder.write(obj, "Normal", "Step", one["text"])

    def _identity(self) -> Identity:
        return Identity(f"{BY}{self.identity}", f"{PREFIX}{self.identity}", _is_alive)


def _is_alive(holder: str) -> bool | None:
    """Another operator is not at work: the Lease is ours. Of a command line only its own lease tells."""
    return False if holder.startswith(PREFIX) else None


def _not_here(spec: Spec) -> str:
    """What only a command line does: whoever may write a Release is not to run programs in the operator's pod."""
    sections: dict[str, Sequence[Analysis]] = {
        "bluegreen": spec.bluegreen.analysis,
        "canary": spec.canary.analysis,
        "rainbow": spec.rainbow.analysis,
    }
    for section, analyses in sections.items():
        for number, one in enumerate(analyses):
            if one.kind == "command":
                where = f"$.spec.{section}.analysis[{number}].kind"
                return f"{where}: command is of the command line, an operator runs none"
    return ""


def _services(spec: Spec) -> tuple[str, ...]:
    names = (spec.service, spec.bluegreen.preview, spec.rainbow.service, spec.canary.service)
    return tuple(dict.fromkeys(name for name in names if name))


def _ready(turn: Turn) -> str:
    coming = turn.sight.scene.edition(turn.decision.status.revision)
    return f"{coming.ready if coming is not None else 0}/{turn.sight.scene.replicas}"


def _has_company(turn: Turn | None) -> bool:
    """Whether other revisions stand beside the one that came: warm, or still at work."""
    if turn is None or turn.sight.scene.spec.strategy == "rolling":
        return False
    status = turn.decision.status
    return any(one.revision != status.revision and (one.members or one.desired) for one in turn.sight.scene.editions)


def _seconds(decision: Decision) -> float:
    if decision.steps:
        return STEP_SECONDS
    match Phase(decision.status.phase):
        case Phase.HALTED:
            return REST_SECONDS
        case _:
            return WAY_SECONDS
