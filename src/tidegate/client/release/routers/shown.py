"""Are the weights in effect? Asked of the data plane, where it can be asked; else waited for, and said to be assumed.

Written is not in effect (openkruise/rollouts verifies only that the object was written). Three looks, one after the
other: the object says it; its controllers say that they took in that generation (``status.parents``); and each replica
of Traefik shows the weights in its own API. Of other proxies the third cannot be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate import vtime
from tidegate.client.release.asking import RETRY_SECONDS, SETTLE_SECONDS
from tidegate.client.release.look import Sight
from tidegate.client.release.routers.pair import Pair
from tidegate.client.release.routers.seam import ROUTERS, pair_of
from tidegate.dataplane.traefikweights import Shares, shares
from tidegate.kube.api import PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request
from tidegate.release.record import Asked
from tidegate.release.scene import REVISION_LABEL, Question, Scene

TRAEFIK = "traefik.io/"
TRAEFIK_PODS = "app.kubernetes.io/name=traefik"
ADMIN_PORTS = ("traefik", "admin")
"""Names of the container port where Traefik's API is: of its Helm chart, and of the lab's."""
ASK_SECONDS = 5.0
Heard = Callable[[Asked], None]


class _Otherwise(Exception):
    """The object itself is not as asked."""


async def answer(client: KubeClient, sight: Sight, question: Question, heard: Heard) -> Asked:
    """Ask until it is so, or until the object itself says otherwise: then it is somebody's to write first, and ``no``.
    For ever, if need be: cancel it. As ``asking.answer``."""
    while True:
        try:
            behind, doubts = await _look(client, sight, question)
            if not behind and not doubts:
                return Asked("yes", at=_now())
            if not behind:
                return await _settled(client, sight, question, (doubts, heard))
            heard(Asked("no", at=_now(), stragglers=behind))
        except _Otherwise as error:
            return Asked("no", at=_now(), stragglers=(str(error),))
        except KubeError as error:
            heard(Asked("no", at=_now(), stragglers=(f"cannot be asked: {error}",)))
        await asyncio.sleep(RETRY_SECONDS)


def _now() -> float:
    return vtime.now().timestamp()


async def _settled(
    client: KubeClient, sight: Sight, question: Question, waiting: tuple[tuple[str, ...], Heard]
) -> Asked:
    """Nobody can be asked: a while, and the object once more."""
    doubts, heard = waiting
    heard(Asked("no", at=_now(), stragglers=(f"{doubts[0]}, waiting {SETTLE_SECONDS:g} s instead",)))
    await asyncio.sleep(SETTLE_SECONDS)
    behind, doubts = await _look(client, sight, question)
    if behind:
        return Asked("no", at=_now(), stragglers=behind)
    return Asked("assumed" if doubts else "yes", at=_now(), seconds=SETTLE_SECONDS, assumed=doubts)


async def _look(client: KubeClient, sight: Sight, question: Question) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who is behind, and who cannot be asked. Raises ``KubeError``, ``_Otherwise``."""
    scene, namespace = sight.scene, sight.entry.namespace
    router, pair = ROUTERS[scene.spec.canary.router], pair_of(scene, namespace)
    obj = await client.get(router.resource, scene.spec.canary.route, namespace)
    wanted = wanted_of(scene, question, pair)
    try:
        fork = router.fork(obj, pair)
    except ValueError as error:
        return (str(error),), ()
    if (fork.shares.get(pair.canary) if fork.is_borrowed else None) != wanted:
        raise _Otherwise(f"{fork.name} says otherwise: {dict(fork.shares)}")
    behind = router.behind(obj)
    if behind:
        return behind, ()
    names = router.controllers(obj)
    doubts = tuple(f"{name}: its data plane cannot be asked for weights" for name in names if TRAEFIK not in name)
    if len(doubts) == len(names):
        return (), doubts
    late, unknown = await _traefik(client, (obj, pair, wanted, bool(fork.header)))
    return late, (*doubts, *unknown)


def wanted_of(scene: Scene, question: Question, pair: Pair) -> int | None:
    """The share of the canary's Service that is asked about; None: nothing leads there any more."""
    if question.kind == "restored":
        return None
    percent = int(question.kind.partition("-")[2])
    way, edition = scene.way(pair.stable), scene.edition(question.revision)
    mark = way.selector.get(REVISION_LABEL) if way is not None else None
    return 100 - percent if edition is not None and mark == edition.mark else percent


async def _traefik(
    client: KubeClient, subject: tuple[JsonObject, Pair, int | None, bool]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Every replica of Traefik by its own API, through ``pods/proxy``. Raises ``KubeError``."""
    obj, pair, wanted, has_header = subject
    pods = [one for one in (await client.list(PODS, Selection("", TRAEFIK_PODS))).items if _is_alive(one)]
    if not pods:
        return (), (f"no pod is labelled {TRAEFIK_PODS}: Traefik cannot be asked for its weights",)
    behind, doubts = [], []
    for one in pods:
        name = f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        port = _admin_port(one)
        if not port:
            doubts.append(f"{name}: it has no port called {' or '.join(ADMIN_PORTS)} to be asked at")
            continue
        try:
            found = shares(await _asked(client, one, port), obj["metadata"]["namespace"], obj["metadata"]["name"])
        except ApiError as error:
            if error.code not in (403, 404):
                raise
            doubts.append(f"{name}: its API cannot be asked ({error.code}; is it on, --api?)")
            continue
        except ValueError as error:
            behind.append(f"{name}: {error}")
            continue
        if late := unlike(found, pair, wanted, has_header):
            behind.append(f"{name}: {late}")
    return tuple(behind), tuple(doubts)


async def _asked(client: KubeClient, pod: JsonObject, port: int) -> bytes:
    metadata = pod["metadata"]
    path = f"{PODS.path(metadata['namespace'], metadata['name'] + f':{port}', 'proxy')}/api/http/services"
    try:
        async with asyncio.timeout(ASK_SECONDS):
            response = await client.request(Request("GET", path, (("per_page", "100000"),)))
            return await response.read()
    except TimeoutError as error:
        raise KubeError(f"no answer within {ASK_SECONDS:g} s to {path}") from error


def unlike(found: Shares, pair: Pair, wanted: int | None, has_header: bool = False) -> str:
    """In what a Traefik's shares are not as wanted, "" for in nothing. Only ways to the two Services count; one to the
    canary's alone is a header's (``has_header``)."""
    ways = [{_leads(child, pair): weight for child, weight in one.items()} for one in found]
    whole = [one for one in ways if pair.stable in one]
    headed = [one for one in ways if set(one) == {pair.canary}]
    if not whole:
        return f"it knows no way to svc/{pair.stable} yet"
    if wanted is None:
        is_left = headed or any(pair.canary in one for one in whole)
        return f"it still knows a way to svc/{pair.canary}" if is_left else ""
    for one in whole:
        total = sum(one.values())
        percent = round(100 * one.get(pair.canary, 0) / total) if total else 0
        if pair.canary not in one:
            return f"it knows no way to svc/{pair.canary} yet"
        if percent != wanted or not total:
            return f"it gives svc/{pair.canary} {percent} %, not {wanted} %"
    if has_header != bool(headed):
        return f"it knows {'no' if has_header else 'a'} way by a header to svc/{pair.canary}"
    return ""


def _leads(child: str, pair: Pair) -> str:
    """``demo-web-0``, ``demo-web-canary-8080``: of which Service's its name is; "" for neither."""
    for service in (pair.canary, pair.stable):
        rest = child.removeprefix(f"{pair.namespace}-{service}-")
        if rest != child and "-" not in rest:
            return service
    return ""


def _is_alive(pod: JsonObject) -> bool:
    """Whether it may route: one that is on its way out still does."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed", "Pending")


def _admin_port(pod: JsonObject) -> int:
    ports = [one for made in pod["spec"]["containers"] for one in made.get("ports") or ()]
    return next((int(one["containerPort"]) for one in ports if one.get("name") in ADMIN_PORTS), 0)
