"""Rainbow with clients that stay on their WebSockets: none is cut, each revision goes as its clients go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bench.figures import Figure, at_least, at_most, holds
from bench.ground import BenchLab
from bench.releases_ground import IMAGE, Play, web
from bench.releases_sockets import Guest, seated
from bench.verbs_ground import Done
from tidegate.rehearse.real import RealStage

PODS, GUESTS = 3, 6
WAIT_SECONDS = 120.0
STAY_SECONDS = {3: 15.0, 6: 60.0}
"""By cap: how long all of them stay once every revision has its clients."""
REFUSED_TIMEOUT = "4s"


class Rainbow(Play):
    """Releases one after the other, and the guests of each."""

    def __init__(self, lab: BenchLab, stage: RealStage, cap: int) -> None:
        super().__init__(lab, stage, f"rainbow-cap-{cap}", "rainbow")
        self.cap = cap
        self.guests: dict[int, list[Guest]] = {}

    async def begin(self, number: int, *more: str) -> asyncio.subprocess.Process:
        section = {"service": "web", "cap": self.cap, "idleSeconds": 2.0, "retireSeconds": 2.0}
        made = self.file({"images": {"echo": IMAGE.format(f"v{number}")}}, section)
        return await self.start("release", "start", "-f", made, "--yes", *more)

    async def seat(self, number: int) -> None:
        """Clients through the Service, from every node; all of them have to meet this revision."""
        ip, port, _ = await self.address("web")
        sources = self.stage.sources
        made = [await seated(sources[one % len(sources)], (ip, port)) for one in range(GUESTS)]
        self.guests[number] = made
        others = {one.version for one in made} - {f"v{number}"}
        if others:
            self.wrong.append(f"clients met {sorted(others)} when r{number} was said to have all new traffic")

    async def until(self, what: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Raises ``TimeoutError`` with what ``release status`` said last."""
        shown: dict[str, Any] = {}
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not is_so(shown := await self.document()):
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise TimeoutError(f"{what}: {shown.get('phase')}, {shown.get('reason')}") from None
        return shown

    async def has_traffic(self, number: int) -> None:
        await self.until(f"r{number}", lambda shown: f"r{number} has all new traffic" in shown["reason"])

    async def goes(self, number: int) -> list[int]:
        """The guests of one pod after the other leave; how many pods of the revision stand each time, 0 at the end."""
        alive: list[int] = []
        guests = self.guests[number]
        pods = sorted({one.pod for one in guests})
        for place, pod in enumerate(pods, start=1):
            await asyncio.gather(*(one.leave() for one in guests if one.pod == pod))
            left = len(pods) - place

            def is_smaller(shown: dict[str, Any], left: int = left) -> bool:
                return pods_of(shown, number) <= left

            shown = await self.until(f"r{number} with guests on {left} pods", is_smaller)
            alive.append(pods_of(shown, number))
        return alive


def pods_of(shown: dict[str, Any], number: int) -> int:
    """That it is to have; a revision that is gone has none."""
    return next((int(one["desired"]) for one in shown["revisions"] if one["revision"] == f"r{number}"), 0)


async def stay(ground: BenchLab, stage: RealStage, cap: int) -> list[Figure]:
    """As many releases as may live, one more that has to wait, and all of them leave in turn."""
    play, title = Rainbow(ground, stage, cap), f"rainbow, cap {cap}"
    await play.put(web(PODS), type="NodePort")
    async with play.requests():
        await play.seat(1)
        carrying = []
        for number in range(2, cap + 1):
            carrying.append(await play.begin(number))
            await play.has_traffic(number)
            await play.seat(number)
        carrying.append(await play.begin(cap + 1, "--timeout", REFUSED_TIMEOUT))
        refused = await play.expect(carrying.pop(), "one too many", code=1)
        stands = await play.document()
        await asyncio.sleep(STAY_SECONDS[cap])
        alive = [await play.goes(1)]
        await play.has_traffic(cap + 1)
        for number in range(2, cap + 1):
            alive.append(await play.goes(number))
        await play.until("the end", lambda shown: shown["phase"] == "done")
        for process in carrying:
            await play.expect(process, "start")
        await play.answered_by(f"v{cap + 1}")
    left = {one["metadata"]["name"]: one["spec"]["replicas"] for one in (await play.get("deployments"))["items"]}
    told = play.judged(title, 0.0)
    await play.remove()
    return [
        *_figures(title, play, alive),
        holds(f"{title}: the next one waits, and is told why", *_is_told(refused, stands, cap)),
        holds(f"{title}: all but the last are gone, r1 is at zero", _is_last(left, cap + 1), str(left)),
        at_most(f"{title}: requests lost", len(told.lost), "", 0, f"of {told.sent:,} beside it"),
        holds(f"{title}: commands and answers are as they should be", not play.wrong, "; ".join(play.wrong)[:400]),
    ]


def _is_last(left: dict[str, int], number: int) -> bool:
    return left == {"web": 0, f"web-r{number}": PODS}


def _is_told(refused: Done, stands: dict[str, Any], cap: int) -> tuple[bool, str]:
    text = refused.said.strip().splitlines()[-1]
    is_refused = f"at most {cap} revisions" in text and stands["phase"] == "pending"
    return is_refused, f"exit code {refused.code}: {text[-280:]}"


def _figures(title: str, play: Rainbow, alive: list[list[int]]) -> list[Figure]:
    guests = [one for some in play.guests.values() for one in some]
    cut = [one.cut for one in guests if one.cut]
    messages, stayed = sum(one.heard for one in guests), max(one.seconds for one in guests)
    steps = "; ".join(f"r{number}: {' '.join(map(str, some))}" for number, some in enumerate(alive, start=1))
    fewest = min(len(some) for some in alive)
    note = f"of {len(guests)}, up to {stayed:.0f} s, {messages:,} messages" + "".join(f"; {one}" for one in cut[:3])
    shrank = f"{title}: steps in which each revision shrank with its clients"
    return [
        at_most(f"{title}: WebSockets cut", len(cut), "", 0, note),
        at_least(shrank, fewest, "", 1, f"pods left: {steps}"),
    ]


async def three(ground: BenchLab, stage: RealStage) -> list[Figure]:
    return await stay(ground, stage, 3)


async def six(ground: BenchLab, stage: RealStage) -> list[Figure]:
    return await stay(ground, stage, 6)
