"""What each node's kube-proxy says of itself, as far as it decides how many epochs its node has to show.

One is enough where events of one resource are handled in order and a sync commits them at once: kube-proxy since
v1.33 (client-go's InOrderInformers). Node.status.nodeInfo.kubeProxyVersion does not tell: it was the kubelet's version
all along, and is empty since v1.33 (DisableNodeKubeProxyVersion, locked in 1.36). kube-proxy's own health port does:
``status`` by address family is there since v1.33. A word that cannot be had is not "yes": then two epochs are asked
for, which costs a sync more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from tidegate.kube import wire
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import Request
from tidegate.model.epoch import Epoch

HEALTHZ_PORT = 10256
"""kube-proxy's healthzBindAddress, 0.0.0.0 unless it was changed."""
TIMEOUT_SECONDS = 1.0
FRESH_SECONDS = 10.0
"""A kube-proxy that is replaced by an older one lists anew, which takes longer than it takes us to notice."""
STALE_SECONDS = 60.0
"""Between drains nobody asks. A word this old is none: what runs there now may be older. Not sooner, for one round of
questions in a large cluster, where many do not answer, takes longer than ``FRESH_SECONDS``."""
AT_ONCE_MAX = 64


@dataclass(frozen=True, slots=True)
class Word:
    """Whether one epoch proves something about a node; ``why`` not, as the end of a sentence."""

    is_single: bool
    why: str = ""


UNHEARD = Word(False, "its kube-proxy has not been asked yet")


class _Healthz(msgspec.Struct):
    status: dict[str, object] | None = None


class Proxies:
    """``word`` of every node; ``changed`` is called with the node's name. ``latest``: the last epoch that was sent."""

    def __init__(self, changed: Callable[[str], None], latest: Callable[[], Epoch | None]) -> None:
        self._changed = changed
        self._latest = latest
        self._words: dict[str, tuple[str, float, Word]] = {}

    @property
    def latest(self) -> Epoch | None:
        return self._latest()

    def word(self, node: str) -> Word:
        known = self._words.get(node)
        if known is None or asyncio.get_running_loop().time() > known[1] + STALE_SECONDS - FRESH_SECONDS:
            return UNHEARD
        return known[2]

    async def look(self, addresses: Mapping[str, str]) -> None:
        """Ask the nodes whose word is missing or old."""
        now = asyncio.get_running_loop().time()
        self._words = {node: known for node, known in self._words.items() if addresses.get(node) == known[0]}
        due = [node for node in sorted(addresses) if node not in self._words or self._words[node][1] <= now]
        turn = asyncio.Semaphore(AT_ONCE_MAX)

        async def one(node: str) -> None:
            async with turn:
                word = await _ask(addresses[node])
            before = self.word(node)
            self._words[node] = (addresses[node], asyncio.get_running_loop().time() + FRESH_SECONDS, word)
            if word != before:
                self._changed(node)

        await asyncio.gather(*(one(node) for node in due))


async def _ask(address: str) -> Word:
    if not address:
        return Word(False, "its kube-proxy cannot be asked: it has no InternalIP")
    where = f"{address}:{HEALTHZ_PORT}/healthz"
    try:
        peer = wire.Peer(address, HEALTHZ_PORT, timeout_seconds=TIMEOUT_SECONDS)
        status, _, body = await wire.fetch(peer, Request("GET", "/healthz"))
        told = msgspec.json.decode(body, type=_Healthz).status
    except KubeError:
        return Word(False, f"its kube-proxy does not say at {where} that it is v1.33 or later")
    except msgspec.DecodeError:
        return Word(False, f"what answers at {where} is no kube-proxy that is known")
    if status not in (200, 503) or not told:
        return Word(False, f"its kube-proxy is older than v1.33 ({where} has no status by family)")
    return Word(True)
