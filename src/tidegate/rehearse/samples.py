"""What one request of the load came to, the file format it is streamed in, and sums over many.

One line per request: a JSON array in the order of ``Sample``'s fields. Instants are wall seconds (UTC epoch).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

OK = "ok"
REFUSED = "refused"
RESET = "reset"
TIMEOUT = "timeout"
SERVER_ERROR = "5xx"
OTHER_STATUS = "non-2xx"
CLIENT_ERROR = "client-error"
"""The load itself could not send (no port, no descriptor): not the cluster's loss, so the run is invalid."""

CAUSES = (REFUSED, RESET, TIMEOUT, SERVER_ERROR, OTHER_STATUS, CLIENT_ERROR)

NEW = "new"
POOL = "pool"


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request, accounted for.

    ``source`` is the node whose address the client was bound to. ``pod``, ``version`` and ``node`` are the
    answer's own words; on a request lost on a kept connection they are those of the connection's last answer,
    and "" when the connection never answered.
    """

    number: int
    lane: str
    source: str
    scheduled_at: float
    started_at: float
    ended_at: float
    outcome: str
    status: int = 0
    pod: str = ""
    version: str = ""
    node: str = ""
    port: int = 0
    """The client's port: with ``source`` it names the connection in a node's kernel. 0 = it never got one."""

    @property
    def is_lost(self) -> bool:
        """No complete 2xx within the deadline: dropped."""
        return self.outcome != OK

    @property
    def late_seconds(self) -> float:
        """How long after its scheduled instant the request was really sent."""
        return self.started_at - self.scheduled_at


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Sample)


def encode_lines(samples: Sequence[Sample]) -> bytes:
    """Samples as JSON lines, each ended by a newline."""
    return _ENCODER.encode_lines(samples)


def decode_line(line: bytes) -> Sample:
    """One line back into a sample. Raises ``msgspec.DecodeError``."""
    return _DECODER.decode(line)


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the requests of one run."""

    requests: int = 0
    dropped: int = 0
    dropped_by_cause: tuple[tuple[str, int], ...] = ()
    late: int = 0
    latency_p50_seconds: float = 0.0
    latency_p99_seconds: float = 0.0

    @property
    def late_fraction(self) -> float:
        """The part of all requests that started over the limit late, 0..1."""
        return self.late / self.requests if self.requests else 0.0


LATE_SECONDS = 0.1
"""A request that starts later than this after its scheduled instant is late (issue: "over 100 ms late")."""


def tally(samples: Iterable[Sample]) -> Tally:
    """Count requests, drops by cause (in the order of ``CAUSES``, zeros left out) and late starts."""
    requests = late = 0
    causes: dict[str, int] = {}
    latencies: list[float] = []
    for sample in samples:
        requests += 1
        late += sample.late_seconds > LATE_SECONDS
        if sample.is_lost:
            causes[sample.outcome] = causes.get(sample.outcome, 0) + 1
        else:
            latencies.append(sample.ended_at - sample.scheduled_at)
    latencies.sort()
    return Tally(
        requests=requests,
        dropped=sum(causes.values()),
        dropped_by_cause=tuple((cause, causes[cause]) for cause in CAUSES if cause in causes),
        late=late,
        latency_p50_seconds=quantile(latencies, 0.50),
        latency_p99_seconds=quantile(latencies, 0.99),
    )


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """Nearest-rank quantile of an ascending sequence; 0.0 for an empty one."""
    if not ordered:
        return 0.0
    rank = max(0, min(len(ordered) - 1, round(fraction * len(ordered) + 0.5) - 1))
    return ordered[rank]
