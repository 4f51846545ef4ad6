"""Every name Tidegate writes on Kubernetes objects, in one typed file: keys, values, and their codec pairs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

import msgspec

from tidegate.model.decode import Malformed

SYSTEM_NAMESPACE = "tidegate-system"
OPERATOR = "tidegate-operator"
"""The operator's Deployment, service account and Lease."""
WEBHOOK = "tidegate"
"""The configuration that has API servers ask the webhook."""
WEBHOOK_SERVICE = "tidegate-webhook"

# Annotations
DRAIN = "tidegate.dev/drain"
"""On a pod while it is drained: a ``DrainRecord``."""
DRAIN_RESULT = "tidegate.dev/drain-result"
"""On a pod just before it is released: a ``DrainResult``."""
RESERVATIONS = "tidegate.dev/reservations"
"""On a Service: the drains in flight that count against its floor, JSON {pod uid: token}."""
LATEST_EPOCH = "tidegate.dev/epoch"
"""On the fence's EndpointSlice: the epoch as text, for people who look."""

PREPARED = "tidegate.dev/prepare"
"""On a Service that ``prepare`` gave a label of its own, and on a Deployment while that pauses it: a
``PrepareRecord``."""
PREPARED_REVISION = "tidegate.dev/prepared-revision"
"""On the template of an older ReplicaSet: ``given`` where ``prepare`` gave it the label, ``kept`` where it had it.

Without it, it could equal the newest one, and the Deployment would take the older of the two for its own."""
ACTIVITY = "tidegate.dev/activity"
"""On a pod or its template, written by users: how to ask whether it is working though nobody is connected."""
WORK = "tidegate.dev/work"
"""On pods of a rainbow release that serve, written by it: how any of them is asked for a whole revision's work, a probe
with ``{revision}`` in it. No gate asks it: one pod's end does not wait for what others may do."""
DRAIN_RUN = "tidegate.dev/drain-run"
"""On every pod that a drain of several is about: its subject and the instant its youngest pod was made."""
VOUCHED = "tidegate.dev/vouched"
"""On a Node, written by ``tidegate vouch``: a ``VouchRecord``."""
CORDONED = "tidegate.dev/cordoned"
"""On a Node that ``drain node/N`` cordoned: the drain's token."""

UNGATED = "tidegate.dev/ungated"
"""On a pod, written by the webhook: why it, or one of its containers, has no gate."""

# Labels
GATE, GATE_ON, GATE_OFF = "tidegate.dev/gate", "enabled", "disabled"
"""Written by users. On a namespace: its new pods get the gate. On a pod or its template: this one does, or does not."""
REPLACE_SLEEP = "tidegate.dev/replace-sleep"
"""Written by users, ``true`` on a namespace or (also as an annotation) on a pod: the gate takes the place of a preStop
hook that only sleeps."""
HELD = "tidegate.dev/held"
"""On a pod that a verb has taken out and keeps: ``cut`` or ``isolated``. The draining Service selects on it."""
HELD_CUT = "cut"
"""Out of its Services, by whichever verb."""
HELD_ISOLATED = "isolated"
"""Let go by its owner, with its traffic."""
TRAFFIC_PREFIX = "traffic.tidegate.dev/"
"""``prepare``'s own label: this and the Service's name."""
TRAFFIC_VALUE = "on"
TOMBSTONE = "tidegate.dev/tombstone"
"""On a pod that is about to be deleted: the drain's token."""
FENCE_INSTALL = "tidegate.dev/fence"
"""On the fence's Service and EndpointSlice: the install id."""
CUT_VALUE = "tidegate-cut"
"""What a traffic label says while its pod is cut; the value before is in the ``DrainRecord``."""
ISOLATED_VALUE = "tidegate-isolated"
"""What the label says that its owner's selector looked at, while a pod is isolated from it."""
TOMBSTONE_VALUE = "tidegate-tombstone"
"""What a tombstoned pod's own labels say, so that no selector, restored or rolled back, selects it again."""

MANAGED_BY, TIDEGATE = "app.kubernetes.io/managed-by", "tidegate"
"""The label of objects that Tidegate makes of itself, and takes away again."""
DRAINING_SERVICE = "tidegate-draining"
"""The headless Service that keeps held pods scrapeable: no data plane routes it, so it is no route."""

# The fence
FENCE_PREFIX = "tidegate-fence-"
FENCE_PORT = 1

# The gate, the agent, the coordinator
GATE_PORT = 15299
GATE_PATH = "/gate/"
AGENT_PORT = 15200
COORDINATOR_PORT = 15201


def fence_name(install: str) -> str:
    """Name of the fence's Service and EndpointSlice."""
    return FENCE_PREFIX + install


def fence_install(name: str) -> str | None:
    """The install id in the name of a fence, or None when ``name`` names no fence."""
    return name.removeprefix(FENCE_PREFIX) if name.startswith(FENCE_PREFIX) and name != FENCE_PREFIX else None


class Ending(Enum):
    """How a drain ended. Only VERIFIED is a proof; the rest name what is missing."""

    VERIFIED = "verified"
    VERIFIED_EXCEPT = "verified-except"
    ASSUMED = "assumed"
    TIMED_OUT = "timed-out"
    BYPASSED = "bypassed"
    FORCED = "forced"
    REFUSED = "refused"


class DrainRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands on a pod while it is drained: enough for another process to go on from.

    ``at`` and ``deadline`` are RFC 3339 instants, ``epoch`` is ``install/number`` or empty, ``labels`` are the pod's
    own before the cut (label mode), ``seen`` the Services whose slices had it then (absence counts only after
    presence), ``stragglers`` the observers still to let go.

    Label mode only: ``verb`` is what was asked for (drain, cut, isolate), ``by`` who asked (user@host), ``reason``
    why, in their words. ``changed`` are the labels that were set, None where one was removed (what is another value
    now was changed by somebody else), ``isolated`` those by which its owner let go of it before the cut (another pod
    stands in for it since), ``owner`` the controller that had the pod (kind/name/uid). ``until`` is when a
    held pod is nobody's any more (RFC 3339, empty for never), ``forced`` which guard was overridden. ``holder`` names
    the process at work and ``lease_until`` how long it is believed to be; both empty at rest. ``peers`` (name/uid) are
    the pods that go in the place of one that is given back.
    """

    token: str
    state: str
    mode: str = "gate"
    at: str = ""
    deadline: str = ""
    epoch: str = ""
    labels: dict[str, str] = {}
    sealed: bool = False
    seen: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    stragglers: tuple[str, ...] = ()
    verb: str = "drain"
    by: str = ""
    reason: str = ""
    changed: dict[str, str | None] = {}
    isolated: dict[str, str | None] = {}
    owner: str = ""
    until: str = ""
    forced: str = ""
    holder: str = ""
    lease_until: str = ""
    peers: tuple[str, ...] = ()

    @property
    def is_at_rest(self) -> bool:
        """Whether its verb has come to its end and nobody is at work on the pod."""
        return not self.holder


class DrainResult(msgspec.Struct, frozen=True):
    """The end of a drain. ``seconds`` is from the cut to the conclusion, ``epoch`` the fence's number or None."""

    result: Ending
    reason: str = ""
    stragglers: tuple[str, ...] = ()
    epoch: int | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.result.value}: {self.reason}" if self.reason else self.result.value


NO_RECORD = DrainResult(Ending.BYPASSED, "no record: whoever held the gate died before it could write one")


class PrepareRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands on a Service that is given a label of its own: enough for another process to go on or to go back.

    ``phase`` is preparing, verifying (the selector asks for the label, stragglers are looked for), prepared, aborting;
    on a Deployment paused or resuming. ``key`` and ``value`` are the label, ``deployments`` who gives it. ``by``,
    ``at`` and the lease (``holder``, ``lease_until``) are as in a ``DrainRecord``; the lease stands on the Service.

    On a Deployment, in place: ``service`` says for which Service it is paused, ``history_limit`` is its own
    revisionHistoryLimit, ``round`` makes each text another, so that its copy on a ReplicaSet tells what was seen.
    """

    token: str
    phase: str
    key: str
    value: str
    in_place: bool = False
    deployments: tuple[str, ...] = ()
    by: str = ""
    at: str = ""
    holder: str = ""
    lease_until: str = ""
    service: str = ""
    history_limit: int | None = None
    round: str = ""

    @property
    def is_at_rest(self) -> bool:
        """Whether nobody is at work on it."""
        return not self.holder


class VouchRecord(msgspec.Struct, frozen=True):
    """What somebody says of a node that cannot speak for itself.

    ``says``: ``dead`` (its kernel forwards nothing any more) or ``no-agent`` (none can run there: serverless, Windows).
    ``by`` is user@host, ``reason`` theirs; ``at`` and ``until`` are RFC 3339, ``until`` empty for as long as the Node
    object lives. It stands on the Node, so it goes with it: a machine that comes back under the name is another one.
    """

    says: str
    reason: str
    by: str
    at: str
    until: str = ""


Noun = TypeVar("Noun", DrainRecord, DrainResult, PrepareRecord, VouchRecord)


def _encode(noun: DrainRecord | DrainResult | PrepareRecord | VouchRecord) -> str:
    return msgspec.json.encode(noun).decode()


def _decode(annotations: Mapping[str, str], key: str, shape: type[Noun]) -> Noun | None:
    text = annotations.get(key)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text.encode(), type=shape)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise Malformed(f"annotation {key}", "$", str(error)) from error


def encode_drain(record: DrainRecord) -> dict[str, str]:
    """The annotation that says a pod is being drained."""
    return {DRAIN: _encode(record)}


def decode_drain(annotations: Mapping[str, str]) -> DrainRecord | None:
    """The drain recorded on a pod, None without one. Raises ``Malformed``."""
    return _decode(annotations, DRAIN, DrainRecord)


def encode_result(result: DrainResult) -> dict[str, str]:
    """The annotation that says how a drain ended."""
    return {DRAIN_RESULT: _encode(result)}


def decode_result(annotations: Mapping[str, str]) -> DrainResult | None:
    """The result recorded on a pod, None without one (read that as ``NO_RECORD`` once it is gone)."""
    return _decode(annotations, DRAIN_RESULT, DrainResult)


def encode_vouch(record: VouchRecord) -> dict[str, str]:
    """The annotation that vouches for a node."""
    return {VOUCHED: _encode(record)}


def decode_vouch(annotations: Mapping[str, str]) -> VouchRecord | None:
    """Who vouches for a node, None without. Raises ``Malformed``."""
    return _decode(annotations, VOUCHED, VouchRecord)


def encode_prepare(record: PrepareRecord) -> dict[str, str]:
    """The annotation that says a Service, or a Deployment, is being prepared."""
    return {PREPARED: _encode(record)}


def decode_prepare(annotations: Mapping[str, str]) -> PrepareRecord | None:
    """The preparation recorded on a Service or a Deployment, None without one. Raises ``Malformed``."""
    return _decode(annotations, PREPARED, PrepareRecord)
