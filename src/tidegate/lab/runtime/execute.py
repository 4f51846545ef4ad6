"""``kubectl exec`` on this runtime: finds the container, runs the command beside it."""

from __future__ import annotations

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.terminals import NotRunnable, Terminal
from tidegate.lab.runtime.logs import LogBook, NoLog
from tidegate.lab.runtime.spec import Runtime, StartError


class Executor:
    """The API server's ``Execute``."""

    def __init__(self, runtime: Runtime, book: LogBook) -> None:
        self._runtime = runtime
        self._book = book

    async def __call__(self, pod: JsonObject, container: str, terminal: Terminal) -> int:
        """Raises ``NotRunnable`` when the container does not run, or the command does not exist."""
        metadata = pod["metadata"]
        try:
            spec = self._book.running(metadata["namespace"], metadata["name"], container)
            return await self._runtime.converse(spec, terminal.command, terminal)
        except (NoLog, StartError) as error:
            raise NotRunnable(str(error)) from error
