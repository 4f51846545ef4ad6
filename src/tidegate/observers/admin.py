"""One GET at the port where a replica tells about itself, for the kinds that are asked in plain HTTP."""

from __future__ import annotations

from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.observers.external import Question, Replica, host_and_port


async def fetched(replica: Replica, question: Question, request: Request, hint: str) -> tuple[dict[str, str], bytes]:
    """Its answer, if that is 200. Raises ``Unreachable``, which ends in ``hint`` where something else answered."""
    host, port = host_and_port(replica.address)
    peer = wire.Peer(host, port, timeout_seconds=question.timeout_seconds)
    status, headers, body = await wire.fetch(peer, request)
    if status != 200:
        raise Unreachable(f"{replica.address}{request.path} answered {status}: {hint}")
    return headers, body
