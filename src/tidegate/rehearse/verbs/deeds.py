"""One verb as somebody runs it from a shell: planned and carried out by the public client, killed or interrupted
perhaps, and written down with its instants and its outcome."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from tidegate import vtime
from tidegate.client import (
    About,
    PrepareOptions,
    VerbOptions,
    carry_out,
    cut_pod,
    drain_node,
    drain_pod,
    isolate_pod,
    plan_node,
    plan_pod,
    prepare_service,
    restore_pod,
)
from tidegate.client.many import in_turn, mark, run_of, whole_again
from tidegate.client.options import Identity
from tidegate.client.targets import Targets, TooFewPods
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import Exchange
from tidegate.model.names import DrainResult, Ending
from tidegate.observers.proxied import is_installed
from tidegate.rehearse.verbs.scene import NS
from tidegate.rehearse.verbs.weather import Mortal

Verb = Literal["cut", "isolate", "sever", "restore", "drain", "drain-deploy", "drain-node", "prepare"]
End = Literal["", "kill", "interrupt"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is typed. ``target`` is a pod, a Deployment, a node, or the Service that is prepared."""

    verb: Verb
    target: str
    options: VerbOptions
    deployments: tuple[str, ...] = ()
    in_place: bool = False
    is_abort: bool = False

    def __str__(self) -> str:
        how = [f"--on-deadline {self.options.on_deadline}", *(f"--service {one}" for one in self.options.services)]
        how += ["--abort"] * self.is_abort + ["--in-place"] * self.in_place
        how += [] if self.options.replace is None else [f"replace={self.options.replace}"]
        return f"{self.verb} {self.target} {' '.join(how)}"


@dataclass(slots=True)
class Deed:
    """What was typed and what came of it. Instants are wall seconds; ``until`` is None while it runs.

    ``word``: the result's, or killed, interrupted, failed, crashed. ``results`` by pod.
    """

    wish: Wish
    at: float
    until: float | None = None
    word: str = ""
    reason: str = ""
    results: dict[str, DrainResult] = field(default_factory=dict)

    def __str__(self) -> str:
        until = "" if self.until is None else f"-{self.until % 10000:.2f}"
        return f"{self.at % 10000:.2f}{until} {self.wish}: {self.word} {self.reason}"


class Shell:
    """Where verbs are typed. ``deeds`` in the order they began; ``dead`` are the holders of killed processes."""

    def __init__(self, exchange: Exchange, rng: random.Random) -> None:
        self.deeds: list[Deed] = []
        self.dead: set[str] = set()
        self._exchange = exchange
        self._rng = rng
        self._count = 0
        self._ghosts: list[asyncio.Future[tuple[str, str]]] = []

    async def close(self) -> None:
        """End what killed processes left in memory."""
        for ghost in self._ghosts:
            ghost.cancel()
        await asyncio.gather(*self._ghosts, return_exceptions=True)

    async def type(self, wish: Wish, end: End = "") -> Deed:
        """Run one verb; ``end``: it is killed at some request, or interrupted (Ctrl-C) at some instant."""
        self._count += 1
        holder, is_here = f"process-{self._count}", self._rng.random() < 0.5
        knows: Callable[[str], bool | None] = lambda other: (other not in self.dead) if is_here else None  # noqa: E731
        identity = Identity(f"person-{self._count}@desk", holder, knows)
        options = replace(wish.options, identity=identity, seed=self._rng.getrandbits(32))
        deed = Deed(wish, vtime.now().timestamp())
        self.deeds.append(deed)
        died = asyncio.Event()
        exchange = self._exchange
        if end == "kill":
            is_done_first = self._rng.random() < 0.5
            exchange = Mortal(exchange, self._rng.randint(1, 80), is_done_first, died.set)
        running = asyncio.ensure_future(
            self._carry_out(KubeClient(exchange, "lab"), replace(wish, options=options), deed)
        )
        if end == "interrupt":
            asyncio.get_running_loop().call_later(self._rng.uniform(0.05, 12.0), running.cancel)
        dying = asyncio.ensure_future(died.wait())
        await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if died.is_set():
            self.dead.add(holder)
            deed.word = "killed"
            self._ghosts.append(running)
        else:
            self._conclude(deed, running)
        deed.until = vtime.now().timestamp()
        return deed

    @staticmethod
    def _conclude(deed: Deed, running: asyncio.Future[tuple[str, str]]) -> None:
        if running.cancelled():
            deed.word = "interrupted"
            return
        error = running.exception()
        if error is None:
            deed.word, deed.reason = running.result()
        elif isinstance(error, KubeError):
            deed.word, deed.reason = "failed", str(error)
        else:
            deed.word, deed.reason = "crashed", repr(error)

    async def _carry_out(self, client: KubeClient, wish: Wish, deed: Deed) -> tuple[str, str]:
        match wish.verb:
            case "prepare":
                return await _prepare(client, wish)
            case "drain-node":
                return await _node(client, wish, deed.results)
            case "drain-deploy":
                return await _deploy(client, wish, deed.results)
            case _:
                result = await _on_pod(client, wish)
                deed.results[wish.target] = result
                return result.result.value, result.reason


def _on_pod(client: KubeClient, wish: Wish) -> Awaitable[DrainResult]:
    name, options = wish.target, wish.options
    match wish.verb:
        case "cut":
            return cut_pod(client, NS, name, options)
        case "isolate" | "sever":
            return isolate_pod(client, (NS, name), wish.verb == "isolate", options)
        case "restore":
            return restore_pod(client, (NS, name), options)
        case _:
            return drain_pod(client, NS, name, options)


async def _prepare(client: KubeClient, wish: Wish) -> tuple[str, str]:
    options = PrepareOptions(
        in_place=wish.in_place,
        is_abort=wish.is_abort,
        timeout_seconds=wish.options.timeout_seconds,
        identity=wish.options.identity,
        seed=wish.options.seed,
    )
    found = await prepare_service(client, About(NS, wish.target, wish.deployments), options)
    return found.result, found.reason


async def _node(client: KubeClient, wish: Wish, results: dict[str, DrainResult]) -> tuple[str, str]:
    plan = await plan_node(client, wish.target, wish.options)
    found = await drain_node(client, plan, wish.options)
    results |= {name.partition("/")[2]: one for name, one in found.results.items() if name.startswith(f"{NS}/")}
    words = sorted({one.result.value for one in results.values()})
    left = "; ".join(f"{name}: {why}" for name, why in found.left.items() if name.startswith(f"{NS}/"))
    return ("refused" if plan.refused else "+".join(words) or "empty"), left


async def _deploy(client: KubeClient, wish: Wish, results: dict[str, DrainResult]) -> tuple[str, str]:
    """As ``tidegate drain deploy/NAME`` does it."""
    options = wish.options
    try:
        run = await run_of(client, Targets(NS, workload=("deploy", wish.target)))
    except TooFewPods as error:
        return "refused", str(error)
    is_witnessed = await is_installed(client)
    await mark(client, run)

    async def whole(before: object) -> str:
        from tidegate.client.plan import PodPlan

        assert isinstance(before, PodPlan)
        return await whole_again(client, before, options, lambda drain: None)

    outcomes = await in_turn(
        run.names,
        lambda name: plan_pod(client, (NS, name), "drain", options, is_witnessed),
        lambda plan, place: carry_out(client, plan, options),
        whole,
        lambda result: result.result is Ending.VERIFIED,
    )
    results |= {one.plan.pod.name: one.result for one in outcomes}
    words = sorted({one.result.result.value for one in outcomes})
    reasons = [one.result.reason for one in outcomes if one.result.result is not Ending.VERIFIED]
    return "+".join(words) or "empty", "; ".join(reasons)
