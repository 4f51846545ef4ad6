"""``cut_pod``: take a pod out of its Services, verify that everybody has let go, and keep it."""

from __future__ import annotations

from tidegate.client.drain import Told, carry_out
from tidegate.client.options import VerbOptions
from tidegate.client.plan import plan_pod
from tidegate.kube.client import KubeClient
from tidegate.model.names import DrainResult
from tidegate.observers.proxied import is_installed

CUT_SECONDS = 60.0
"""A cut shows in every kernel within seconds: what takes longer is a straggler."""


async def cut_pod(
    client: KubeClient, namespace: str, name: str, options: VerbOptions | None = None, told: Told = lambda drain: None
) -> DrainResult:
    """Cut one pod and keep it running. ``verified`` means that no new connection can arrive.

    Idempotent: a cut that was interrupted anywhere is continued. Raises ``KubeError`` (404: no such pod).
    """
    chosen = options or VerbOptions(timeout_seconds=CUT_SECONDS)
    plan = await plan_pod(client, (namespace, name), "cut", chosen, await is_installed(client))
    return await carry_out(client, plan, chosen, told)
