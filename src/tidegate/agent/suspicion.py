"""Lists what may route to pods beside the nodes (``observers.discovery``) and says who of them has no observer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.engine.flights import Flight, Key
from tidegate.kube.api import Api, JsonObject, Resource
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Reflector
from tidegate.model import service
from tidegate.model.decode import Malformed
from tidegate.observers.discovery import AMBIENT, DNS, SOURCES, Found, Router, Subject, discover, network_of

LIST_SECONDS = 5.0
"""How old the lists may be while drains are in flight; the last look lists anew."""
ABSENT_SECONDS = 10.0
"""How long a kind that the cluster did not have is taken to be absent by the last look: a dozen refusals are no small
part of it, and who was just installed routes to no pod that is out of its slices."""

TROUBLED_SECONDS = 15.0
"""How long a last look waits for an API server that cannot just now. A kind that stays unlisted (a conversion webhook
that is down is a 500 too) is one whose routers are not known."""


class Suspicion:
    """``of(flight)``: who is known and who is suspected to route to a drain's pod."""

    def __init__(
        self, api: Api, services: Reflector, changed: Callable[[], None], nodes: Reflector | None = None
    ) -> None:
        self._api = api
        self._nodes = nodes
        self._changed = changed
        self._services = services
        self._objects: dict[str, list[JsonObject]] = {}
        self.listed: dict[str, list[JsonObject] | None] = dict.fromkeys(SOURCES)
        """Everything as last listed, by plural and group; None for what could not be."""
        self._problems: tuple[str, ...] = ("what else may route to it was not listed yet",)
        self._listed_at = float("-inf")
        self._troubled_since: float | None = None
        self._round = 0
        self._absent_at: dict[str, float] = {}
        self._told: dict[Key, tuple[tuple[object, ...], Found]] = {}

    async def list_if_due(self) -> None:
        """Unless it was listed a moment ago."""
        if asyncio.get_running_loop().time() - self._listed_at >= LIST_SECONDS:
            await self.list_now()

    async def look_again(self) -> bool:
        """List every kind anew but those that the cluster did not have a moment ago. False where that may be had in a
        moment: the server is in trouble, and has not been for long."""
        now = asyncio.get_running_loop().time()
        await self._list_all(frozenset(one for one, at in self._absent_at.items() if now - at < ABSENT_SECONDS))
        return self._troubled_since is None or now - self._troubled_since >= TROUBLED_SECONDS

    async def list_now(self) -> None:
        """List everything. Kinds that the cluster does not have are nobody; what may not be read stays in doubt."""
        await self._list_all(frozenset())

    async def _list_all(self, absent: frozenset[str]) -> None:
        listed_at = asyncio.get_running_loop().time()
        asked = [plural for plural in SOURCES if plural not in absent]
        troubled: set[str] = set()
        lists = await asyncio.gather(*(self._list(plural, troubled) for plural in asked))
        found = dict(zip(asked, lists, strict=True))
        answers = [found.get(plural, []) for plural in SOURCES]
        if listed_at < self._listed_at:
            return
        self._listed_at = listed_at
        if not troubled:
            self._troubled_since = None
        elif self._troubled_since is None:
            self._troubled_since = listed_at
        before = self._round
        self._look_at_nodes()
        problems = []
        for plural, answer in zip(SOURCES, answers, strict=True):
            self.listed[plural] = None if isinstance(answer, str) else answer
            if isinstance(answer, str):
                problems.append(answer)
            elif self._objects.get(plural) != answer:
                self._objects[plural] = answer
                self._round += 1
        if self._problems != tuple(problems):
            self._problems = tuple(problems)
            self._round += 1
        if self._round != before:
            self._changed()

    def _look_at_nodes(self) -> None:
        """Nodes change with every heartbeat; what counts is which network they are marked with."""
        nodes = [] if self._nodes is None else list(self._nodes.objects.values())
        if [network_of(one) for one in nodes] != [network_of(one) for one in self._objects.get("nodes", ())]:
            self._round += 1
        self._objects["nodes"] = nodes

    async def _list(self, plural: str, troubled: set[str]) -> list[JsonObject] | str:
        """All of a kind, or why that is not known; ``troubled`` has those that may be had in a moment."""
        group, version, kind, is_namespaced = SOURCES[plural]
        resource = Resource(group, version, plural.partition(".")[0], kind, is_namespaced)
        try:
            items = (await self._api.list(resource)).items
            self._absent_at.pop(plural, None)
            return items
        except ApiError as error:
            if error.is_not_found:
                self._absent_at[plural] = asyncio.get_running_loop().time()
                return []
            self._absent_at.pop(plural, None)
            if error.is_trouble:
                troubled.add(plural)
            return f"{plural} cannot be listed, so who routes by them is not known: {error}"
        except KubeError as error:
            troubled.add(plural)
            return f"{plural} cannot be listed, so who routes by them is not known: {error}"

    def sentences(self, flight: Flight, covers: tuple[str, ...]) -> tuple[str, ...]:
        """Whom nobody asks, as ``View.suspected`` has it: the result is ``assumed``, naming them."""
        # Headless Services are suspected from the first, by the source's own word (``drain.source.suspects``).
        is_told_elsewhere = flight.addition is None
        found = [one for one in self.of(flight, covers).suspected if DNS not in one.ids or not is_told_elsewhere]
        return tuple(
            f"{one.sentence}, and no observer is configured for it" if one.ids else one.sentence for one in found
        )

    def of(self, flight: Flight, covers: tuple[str, ...]) -> Found:
        """Told anew when the lists, the pod, its Services or ``covers`` changed."""
        if flight.pod is None:
            return Found()
        # Where a drain is narrowed to some Services, the others are no concern of its.
        services = (flight.addition.service,) if flight.addition is not None else flight.services or flight.seen
        keys = [tuple(name.split("/", 1)) for name in services]
        named = (self._services.objects.get((key[0], key[-1])) for key in keys)
        objects = [found for found in named if found is not None and not _is_draining(found)]
        versions = tuple(one["metadata"].get("resourceVersion") for one in objects)
        containers = (*flight.pod.containers, *flight.pod.sidecars)
        ambient = flight.pod.annotations.get(AMBIENT, "")
        subject = Subject(services, containers, {AMBIENT: ambient})
        about = (self._round, services, versions, containers, ambient, covers)
        known = self._told.get(flight.key)
        if known is None or known[0] != about:
            known = self._told[flight.key] = (about, self._tell(subject, objects, covers))
        return known[1]

    def _tell(self, subject: Subject, services: list[JsonObject], covers: tuple[str, ...]) -> Found:
        try:
            found = discover(subject, services, self._objects, covers)
        except (AttributeError, KeyError, TypeError) as error:
            found = Found(suspected=(Router(f"an object that routes is not what its kind says: {error!r}", ()),))
        return Found(found.known, (*found.suspected, *(Router(problem, ()) for problem in self._problems)))

    async def of_services(self, names: tuple[str, ...], covers: tuple[str, ...]) -> list[dict[str, object]]:
        """Who routes by each of these Services (namespace/name), for those by which anybody does: ``{"service",
        "known": [sentences], "suspected": [sentences]}``."""
        await self.list_if_due()
        told: list[dict[str, object]] = []
        for name in names:
            namespace, _, plain = name.partition("/")
            obj = self._services.objects.get((namespace, plain))
            found = self._tell(Subject((name,)), [] if obj is None else [obj], covers)
            if found.known or found.suspected:
                known, suspected = ([one.sentence for one in part] for part in (found.known, found.suspected))
                told.append({"service": name, "known": known, "suspected": suspected})
        return told

    def keep(self, keys: tuple[Key, ...]) -> None:
        """Forget all drains but these."""
        kept = frozenset(keys)
        self._told = {key: told for key, told in self._told.items() if key in kept}


def _is_draining(obj: JsonObject) -> bool:
    """Whether it is our own, that keeps cut pods scrapeable: a LIST of Services from just before there was one leaves
    its slice among those of ordinary Services (``Source.seen``)."""
    try:
        return service.decode(obj).is_draining
    except Malformed:
        return False
