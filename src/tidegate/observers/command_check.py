"""Kind ``command``: a program of yours that is run where the coordinator runs.

It is told TIDEGATE_ENDPOINTS (``ip:port/PROTOCOL``, one a line; port 0 is every port), TIDEGATE_EPOCH,
TIDEGATE_REPLICA, TIDEGATE_ADDRESS and TIDEGATE_QUESTION. To ``unrouted`` exit code 0 says: it has let go of all of
them; 1: it still routes to those it prints, one a line, as they were given; to all of them where it prints none.
``routed`` is asked of pods that were added (the option ``additionsOf``): 0, it sends to all of them; 1, not yet to
those it prints. Anything else is unknown. A line ``epoch N`` says that everything up to that epoch of the fence was
applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable

import msgspec

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.kube.errors import Unreachable
from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.epoch import Epoch
from tidegate.observers.external import Fencing, Question, Replica, Spec, replicas_of
from tidegate.observers.options import Asking, decode_options, of_services, spelled

LET_GO, STILL_ROUTES = 0, 1


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``command``: program and arguments, no shell. ``additions_of``: ``options.Asking``."""

    command: tuple[str, ...]
    covers: tuple[str, ...] = ()
    additions_of: tuple[str, ...] = ()


class CommandCheck(Asking):
    """Observer of kind ``command``. Without a place it has one replica, called ``command``."""

    fencing = Fencing.SINGLE

    def __init__(self, spec: Spec) -> None:
        self._where = spec.where
        self._options = decode_options(spec, Options)
        if not self._options.command:
            raise ValueError(f"{spec.path}.command: no program is named")
        self.covers = self._options.covers
        self._additions_of = of_services(self._options.additions_of, spec.path)

    def replicas(self, slices: Iterable[EndpointSlice]) -> tuple[Replica, ...]:
        if not self._where.service and not self._where.addresses:
            return (Replica("command", ""),)
        return replicas_of(self._where, slices)

    async def ask(self, replica: Replica, question: Question) -> Facts:
        """Raises ``Unreachable`` when it cannot be run or does not end in time."""
        spelled_endpoints = [f"{spelled(one)}/{one.protocol}" for one in question.endpoints]
        env = {
            **os.environ,
            "TIDEGATE_ENDPOINTS": "\n".join(spelled_endpoints),
            "TIDEGATE_EPOCH": "" if question.epoch is None else str(question.epoch.number),
            "TIDEGATE_REPLICA": replica.name,
            "TIDEGATE_ADDRESS": replica.address,
            "TIDEGATE_QUESTION": question.kind,
        }
        code, output = await _run(self._options.command, env, question.timeout_seconds)
        return read(replica.name, question, code, output)


async def _run(command: tuple[str, ...], env: dict[str, str], timeout_seconds: float) -> tuple[int, str]:
    """Exit code and output. Raises ``Unreachable``."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise Unreachable(f"{command[0]}: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(timeout_seconds):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise Unreachable(f"{command[0]} took longer than {timeout_seconds:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whatever it started
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


def read(source: str, question: Question, code: int, output: str) -> Facts:
    """What a finished command said."""
    fence: list[Epoch] = []
    named: list[str] = []
    try:
        for line in filter(None, map(str.strip, output.splitlines())):
            word, _, number = line.partition(" ")
            if word == "epoch":
                fence.append(Epoch(question.install, int(number)))
            else:
                named.append(line)
        if code not in (LET_GO, STILL_ROUTES):
            raise ValueError(f"exit code {code}: 0 is let go, 1 still routes")
        printed = _printed(question.endpoints, named) if code == STILL_ROUTES else ()
    except ValueError as error:
        return Facts(source, "command", unreadable=(Unreadable(str(error), "command"),))
    is_addition = question.kind == "routed"
    routed = tuple(one for one in question.endpoints if one not in printed) if is_addition else printed
    routes = tuple(Route("command", "", 0, endpoint.protocol, (endpoint,)) for endpoint in routed)
    return Facts(source, "command", routes=routes, fence=tuple(fence))


def _printed(asked: tuple[Endpoint, ...], named: list[str]) -> tuple[Endpoint, ...]:
    known = {f"{spelled(one)}/{one.protocol}": one for one in asked}
    if unknown := [line for line in named if line not in known]:
        raise ValueError(f"{unknown[0][:80]!r} was not asked about")
    return tuple(known[line] for line in named) or asked
