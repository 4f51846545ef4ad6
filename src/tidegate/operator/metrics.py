"""What Prometheus is told. Names and labels are in ``docs/operator.md``; a test holds the two against each other.

No label has an unbounded set of values: pods and Releases are not labels, observers are by kind.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tidegate.drain.ledger import Entry
from tidegate.model.names import Ending

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DRAIN_BUCKETS = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
_ACK_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
_WORK_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
_VERIFIED = (Ending.VERIFIED.value, Ending.VERIFIED_EXCEPT.value)


class Metrics:
    """One registry of its own: what another library in the process registers is not ours to show."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.drain_seconds = Histogram(
            "tidegate_drain_seconds",
            "From the cut to the conclusion.",
            ["result"],
            buckets=_DRAIN_BUCKETS,
            registry=own,
        )
        self.acknowledgement_seconds = Histogram(
            "tidegate_observer_acknowledgement_seconds",
            "From the cut until an observer had let go for good.",
            ["observer"],
            buckets=_ACK_BUCKETS,
            registry=own,
        )
        self.unverified = Counter("tidegate_drains_unverified", "Drains without a proof.", ["result"], registry=own)
        self.lost = Counter(
            "tidegate_connections_lost", "Connections that were open at the end of a pod.", registry=own
        )
        self.stragglers = Gauge(
            "tidegate_stragglers", "Observers that releases under way wait for, by the last look.", registry=own
        )
        self.releases = Gauge("tidegate_releases", "Releases by phase.", ["phase"], registry=own)
        self.queue_depth = Gauge("tidegate_queue_depth", "Releases that wait for a worker.", registry=own)
        self.reconcile_seconds = Histogram(
            "tidegate_reconcile_seconds", "One look at one Release.", ["outcome"], buckets=_WORK_BUCKETS, registry=own
        )
        self.is_leading = Gauge("tidegate_leader", "1 while this process is the one that acts.", registry=own)
        self.events_dropped = Gauge("tidegate_events_dropped", "Events that were not written.", registry=own)
        self.records_dropped = Gauge(
            "tidegate_drain_records_dropped", "Drain objects that were not written.", registry=own
        )
        self.reviews = Counter("tidegate_webhook_reviews", "New pods, by what was done.", ["outcome"], registry=own)

    def saw(self, entry: Entry) -> None:
        """One retirement came to its end."""
        if entry.amends:
            return
        self.drain_seconds.labels(entry.result or "unknown").observe(entry.seconds)
        if entry.result not in _VERIFIED:
            self.unverified.labels(entry.result or "unknown").inc()
        if entry.result and entry.connections_at_end.count:
            self.lost.inc(entry.connections_at_end.count)
        for one in entry.answers:
            if one.seconds is not None:
                self.acknowledgement_seconds.labels(kind_of(one.observer)).observe(one.seconds)

    def text(self) -> bytes:
        """As Prometheus scrapes it."""
        found: bytes = generate_latest(self.registry)
        return found


def kind_of(observer: str) -> str:
    """``node/N`` and a bare node's name -> ``node``; ``traefik/replica`` -> ``traefik``."""
    return observer.partition("/")[0] if "/" in observer else "node"
