"""Who gets SIGTERM when: main containers first, then sidecars in reverse order of their start.

Source: Kubernetes v1.36.2 pkg/kubelet/kuberuntime/kuberuntime_termination_order.go. Hooks are not ordered: a
sidecar's preStop starts with all the others and holds nobody but the sidecar itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tidegate.lab.kubelet.states import Role


class TerminationOrder:
    """Built from the running containers (name, role) in the pod's order."""

    def __init__(self, containers: Sequence[tuple[str, Role]]) -> None:
        self._ended = {name: asyncio.Event() for name, _ in containers}
        mains = [name for name, role in containers if role != "sidecar"]
        sidecars = [name for name, role in containers if role == "sidecar"]
        self._after: dict[str, tuple[str, ...]] = {}
        for index, name in enumerate(sidecars):
            self._after[name] = (*mains, *sidecars[index + 1 :])

    def ended(self, name: str) -> None:
        """``name`` runs no longer."""
        self._ended[name].set()

    def turn_of(self, name: str) -> Callable[[float], Awaitable[None]] | None:
        """Waits (at most the seconds given) for the containers that go before; None = goes first."""
        before = self._after.get(name, ())
        if not before:
            return None

        async def wait(seconds: float) -> None:
            try:
                async with asyncio.timeout(seconds):
                    for other in before:
                        await self._ended[other].wait()
            except TimeoutError:
                pass

        return wait
