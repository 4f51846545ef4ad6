"""What the API showed of the story's pods and Services, each change with its instant: the judge asks nobody else."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate import vtime
from tidegate.kube.api import PODS, SERVICES, Api, JsonObject, Selection
from tidegate.kube.reflector import Reflector
from tidegate.model.names import HELD, DrainResult
from tidegate.rehearse.spectator import is_ready, read_result
from tidegate.rehearse.verbs.scene import NS
from tidegate.vtime import Nursery


@dataclass(frozen=True, slots=True)
class Frame:
    """One pod from ``at`` (wall seconds) until its next frame."""

    at: float
    labels: tuple[tuple[str, str], ...]
    is_ready: bool
    is_leaving: bool
    owner: str

    def matches(self, selector: dict[str, str]) -> bool:
        return not selector.items() - dict(self.labels).items()

    @property
    def held(self) -> str:
        return dict(self.labels).get(HELD, "")


@dataclass(slots=True)
class Filmed:
    """One pod's life as the API showed it."""

    name: str
    uid: str
    ip: str = ""
    node: str = ""
    created_at: float = 0.0
    gone_at: float | None = None
    result: DrainResult | None = None
    frames: list[Frame] = field(default_factory=list)

    def frame(self, at: float) -> Frame | None:
        """What stood at an instant."""
        if self.gone_at is not None and at >= self.gone_at:
            return None
        return next((one for one in reversed(self.frames) if one.at <= at), None)


class Camera:
    """``pods`` by uid, in the order they were first seen; ``selectors`` of each Service, each with its instant.

    ``await run()`` beside the story.
    """

    def __init__(self, api: Api) -> None:
        self.pods: dict[str, Filmed] = {}
        self.selectors: dict[str, list[tuple[float, dict[str, str]]]] = {}
        self._watches = (Reflector(api, PODS, Selection(NS)), Reflector(api, SERVICES, Selection(NS)))
        self._watches[0].subscribe(self._changed)
        self._watches[1].subscribe(self._selected)

    async def run(self) -> None:
        async with Nursery() as nursery:
            for watch in self._watches:
                nursery.start(watch.run(), name=f"film {watch.resource.plural}")

    def selector(self, service: str, at: float) -> dict[str, str]:
        """What the Service selected by at an instant."""
        history = self.selectors[service]
        return next((chosen for since, chosen in reversed(history) if since <= at), history[0][1])

    def _selected(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None:
            chosen = dict(new["spec"].get("selector") or {})
            history = self.selectors.setdefault(new["metadata"]["name"], [])
            if not history or history[-1][1] != chosen:
                history.append((vtime.now().timestamp(), chosen))

    def _changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        at = vtime.now().timestamp()
        obj = new if new is not None else old
        assert obj is not None
        metadata = obj["metadata"]
        seen = self.pods.setdefault(metadata["uid"], Filmed(metadata["name"], metadata["uid"], created_at=at))
        if new is None:
            seen.gone_at = at
            return
        seen.ip = (obj.get("status") or {}).get("podIP") or seen.ip
        seen.node = obj["spec"].get("nodeName") or seen.node
        seen.result = read_result(obj) or seen.result
        owners = [one["uid"] for one in metadata.get("ownerReferences") or () if one.get("controller")]
        labels = tuple(sorted((metadata.get("labels") or {}).items()))
        frame = Frame(at, labels, is_ready(obj), "deletionTimestamp" in metadata, "".join(owners[:1]))
        if not seen.frames or seen.frames[-1] != Frame(seen.frames[-1].at, *_facts(frame)):
            seen.frames.append(frame)


def _facts(frame: Frame) -> tuple[tuple[tuple[str, str], ...], bool, bool, str]:
    return frame.labels, frame.is_ready, frame.is_leaving, frame.owner
