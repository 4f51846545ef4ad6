"""What a node's kube-proxy said of itself counts while it is fresh."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.agent.proxies import FRESH_SECONDS, HEALTHZ_PORT, STALE_SECONDS, UNHEARD, Proxies
from tidegate.kube import wire
from tidegate.kube.exchange import whole

NODE = {"node-1": "127.16.0.11"}


async def healthz(request):
    return whole(200, b'{"status": {"IPv4": {"healthy": true}}}')


def test_a_word_from_before_the_last_drain_is_none():
    """Between two drains nobody asks. A kube-proxy that was replaced by an older one meanwhile promises no order."""

    async def story():
        proxies = Proxies(lambda node: None, lambda: None)
        async with wire.serving(healthz, NODE["node-1"], HEALTHZ_PORT):
            await proxies.look(NODE)
            await asyncio.sleep(FRESH_SECONDS)
            assert proxies.word("node-1").is_single
            await asyncio.sleep(STALE_SECONDS)
            assert proxies.word("node-1") is UNHEARD
            await proxies.look(NODE)
            assert proxies.word("node-1").is_single

    vtime.run(story(), limit_seconds=2 * STALE_SECONDS)
