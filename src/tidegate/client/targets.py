"""Which pods a verb is about: by name, or the first so many that a selector selects."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.kube.api import PODS, Api, Selection
from tidegate.kube.errors import ApiError
from tidegate.model import pod
from tidegate.model.pod import Pod


@dataclass(frozen=True, slots=True)
class Targets:
    """``names`` of pods, or a ``selector`` (kubectl's ``-l``); at most ``count`` of what is selected, 0 for all."""

    namespace: str
    names: tuple[str, ...] = ()
    selector: str = ""
    count: int = 0


async def pods_of(api: Api, targets: Targets) -> tuple[str, ...]:
    """Names of the pods, in order. Raises ``KubeError``: 404 where a selector selects fewer than ``count``."""
    if targets.names:
        return tuple(dict.fromkeys(targets.names))
    found = [pod.decode(obj) for obj in (await api.list(PODS, Selection(targets.namespace, targets.selector))).items]
    chosen = sorted((one for one in found if not one.is_terminating and not one.is_finished), key=_order)
    if len(chosen) < max(targets.count, 1):
        has = f"{len(chosen)} pods" if chosen else "no pod"
        raise ApiError(404, "NotFound", f"{has} with labels {targets.selector} to choose {targets.count or 'one'} from")
    return tuple(one.name for one in chosen[: targets.count or None])


def _order(one: Pod) -> tuple[bool, str]:
    """Those that serve nothing go first; then by name, so that a second run chooses the same."""
    return one.is_ready, one.name
