"""From a server's URL or a kubeconfig to an API client, in either runtime."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tidegate import vtime
from tidegate.kube import direct
from tidegate.kube.client import KubeClient
from tidegate.kube.exchange import Exchange, Request, Response
from tidegate.kube.kubeconfig import Cluster, load
from tidegate.kube.patience import Patience, Patient

if TYPE_CHECKING:
    from tidegate.kube.http import HttpTransport


@contextlib.asynccontextmanager
async def open_api(
    server: str = "", *, kubeconfig: str = "", context: str = "", is_lean: bool = False
) -> AsyncIterator[KubeClient]:
    """An API client for ``server``, else for the cluster a kubeconfig names.

    ``is_lean``: without aiohttp wherever that is possible (``kube.direct``). On a virtual loop a server hosted on that
    loop is asked in process, without sockets. Raises ``ConfigError``.
    """
    cluster = Cluster(server) if server else load(kubeconfig, context)
    async with open_cluster(cluster, is_lean=is_lean) as api:
        yield api


@contextlib.asynccontextmanager
async def open_exchange(server: str) -> AsyncIterator[Exchange]:
    """Any HTTPS server, without credentials of ours; on a virtual loop one that is hosted there."""
    hosted: dict[str, Exchange] = vtime.hosted()
    if server in hosted:
        yield hosted[server]
        return
    from tidegate.kube.http import HttpTransport  # late: importing aiohttp costs 0.12 s

    transport = HttpTransport(Cluster(server))
    try:
        yield transport
    finally:
        await transport.close()


@contextlib.asynccontextmanager
async def open_cluster(
    cluster: Cluster, *, patience: Patience | None = None, is_lean: bool = True
) -> AsyncIterator[KubeClient]:
    """An API client for a cluster already loaded. With ``patience`` it asks again where the server cannot just now
    (``kube.patience``), for callers without a loop of their own to come back with. ``is_lean``: as of ``open_api``;
    command lines are, and importing aiohttp is a quarter of what a short one costs."""
    hosted: dict[str, Exchange] = vtime.hosted()
    if cluster.server in hosted:
        signed = _signed(hosted[cluster.server], cluster)
        yield KubeClient(signed if patience is None else Patient(signed, patience), cluster.server)
        return
    transport = _transport(cluster, is_lean)
    try:
        yield KubeClient(transport if patience is None else Patient(transport, patience), cluster.server)
    finally:
        await transport.close()


def _transport(cluster: Cluster, is_lean: bool) -> HttpTransport | direct.DirectTransport:
    if is_lean and direct.goes(cluster):
        return direct.DirectTransport(cluster)
    from tidegate.kube.http import HttpTransport  # late: importing aiohttp costs 0.12 s

    return HttpTransport(cluster)


def _signed(exchange: Exchange, cluster: Cluster) -> Exchange:
    """``exchange`` as it is asked with a cluster's credentials."""
    if not cluster.headers():
        return exchange

    async def asked(request: Request) -> Response:
        return await exchange(replace(request, headers={**cluster.headers(), **request.headers}))

    return asked
