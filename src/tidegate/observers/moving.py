"""What the coordinator asks of a node agent beside questions, and what it is told: move UDP flows off cut pods.

A path of its own: a question changes nothing, and an agent that does not know this one answers 404. The agent believes
nothing here but which drains there are; whether a flow may be moved its own dump decides (``drain.stranded``).
"""

from __future__ import annotations

import msgspec

from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.coordinator import read, spell

PROTOCOL = 1
MOVE_PATH = "/v1/move"
CUTS_MAX = 1000
ENDPOINTS_MAX = 64


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One drain in flight: its epoch, and where its pod served."""

    epoch: str
    endpoints: tuple[str, ...]

    @classmethod
    def of(cls, epoch: Epoch, endpoints: tuple[Endpoint, ...]) -> Cut:
        return cls(str(epoch), spell(endpoints))

    def understood(self) -> tuple[Epoch, tuple[Endpoint, ...]]:
        """Raises ``ValueError``."""
        return Epoch.parse(self.epoch), read(self.endpoints)


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/move."""

    cuts: tuple[Cut, ...]
    protocol: int = PROTOCOL


class Moved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``counts``: how many flows were moved, for each cut. ``why``: why none could be, empty when it was tried."""

    node: str
    counts: tuple[int, ...]
    why: str = ""
    protocol: int = PROTOCOL


def decode_move(body: bytes) -> Move:
    """Raises ``ValueError`` for anything but a request of this protocol."""
    move = msgspec.json.decode(body, type=Move)
    if move.protocol != PROTOCOL:
        raise ValueError(f"protocol {move.protocol} is not spoken here, only {PROTOCOL}")
    if len(move.cuts) > CUTS_MAX or any(len(cut.endpoints) > ENDPOINTS_MAX for cut in move.cuts):
        raise ValueError(f"more than {CUTS_MAX} drains, or more than {ENDPOINTS_MAX} endpoints of one")
    for cut in move.cuts:
        cut.understood()
    return move


async def ask(peer: wire.Peer, node: str, cuts: tuple[Cut, ...]) -> Moved:
    """Ask the agent of ``node``. Raises ``Unreachable``, an HTTP error and an answer of another kind included."""
    body = msgspec.json.encode(Move(cuts[:CUTS_MAX]))
    request = Request("POST", MOVE_PATH, (), {"content-type": "application/json"}, body)
    status, _, answered = await wire.fetch(peer, request)
    if status != 200:
        raise Unreachable(f"the agent of {node} answered {status}: {answered[:120].decode(errors='replace')}")
    try:
        moved = msgspec.json.decode(answered, type=Moved)
        if moved.node != node or moved.protocol != PROTOCOL or len(moved.counts) != len(cuts[:CUTS_MAX]):
            raise ValueError(f"this is protocol {moved.protocol} from {moved.node!r}")
    except ValueError as error:
        raise Unreachable(f"the agent of {node}: {error}") from error
    return moved
