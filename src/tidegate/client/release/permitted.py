"""May these credentials carry a release to its end? Asked before it is written down: half a release helps nobody."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.client.permissions import Deed, deeds_of, review
from tidegate.kube.api import CONFIGMAPS, RELEASES
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.observers.proxied import is_installed
from tidegate.release.spec import Spec

_WRITES = ("create", "patch", "delete")


async def lacking(client: KubeClient, namespace: str, spec: Spec, is_object: bool, is_operated: bool) -> list[str]:
    """What they may not, as sentences. ``is_object``: it is written in a Release, not a ConfigMap; ``is_operated``: an
    operator carries it, with its own rights. What is read beforehand has been read by then, and a server that does not
    say is taken at its word later. Raises ``KubeError``."""
    if is_operated:
        asked = [Deed(verb, RELEASES.plural, namespace, RELEASES.group) for verb in ("create", "patch")]
    else:
        try:
            is_witnessed = await is_installed(client)
        except ApiError:  # who may not even look will be told what it takes to ask
            is_witnessed = True
        asked = list(_carrying(namespace, spec, is_object, is_witnessed))
    answers = await review(client, asked)
    return [f"these credentials may not {deed}" for deed, may in answers.items() if may is False]


def _carrying(namespace: str, spec: Spec, is_object: bool, is_witnessed: bool) -> Iterator[Deed]:
    """Every write of a release of ``spec``, and how agents and coordinator are asked."""
    other = CONFIGMAPS.plural if is_object else RELEASES.plural
    for deed in deeds_of(f"release {spec.strategy}", namespace, is_witnessed):
        if deed.verb in _WRITES and deed.resource.partition("/")[0] != other:
            yield deed
    if spec.strategy == "canary":
        from tidegate.client.release import routers

        router = routers.ROUTERS.get(spec.canary.router)
        if router is not None:
            yield Deed("patch", router.resource.plural, namespace, router.resource.group)
