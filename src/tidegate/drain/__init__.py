"""When is it safe to end a pod? The drain table, the fence, acknowledgements.

Read ``table.py`` first: it is the whole protocol on one screen. ``docs/protocol.md`` is drawn from it.

Public surface:

- ``begin(pod, mode, policy, forced) -> Drain``, ``step(drain, event) -> Drain`` (raises ``EventError``, which changes
  nothing), ``Drain.state / .stragglers / .result``, ``waiting_for(drain) -> sentences``.
- events (event.py): ``Cut SourceClean SourceDirty FenceWritten ObserversListed Acknowledged SocketsRead Tombstoned
  DeadlinePassed Bypassed Refused Resumed Restored Released Gone``, all keyword-only, all with ``at``.
- ``acknowledge(facts, endpoints, epoch) -> Acknowledgement``; ``unreachable``, ``assumed``; ``quorum``, ``stragglers``.
- fence.py: ``Epoch``, ``FenceWrite.counts_for``, ``next_epoch``, ``Second``, ``fence_service``, ``fence_slice``,
  ``read_slice``.
- source.py: ``look(Question) -> Source``: do the EndpointSlices still send traffic? ``gate_exception(question,
  workload)``: why to answer a gate at once; ``suspects(pod, services)``: for ``ObserversListed``.
- ``record(drain, origin) -> DrainRecord`` for the pod's annotation; ``resume(pod, record) -> Drain`` elsewhere.
- deadline.py: ``Budget``, ``gate_deadline``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.late import late

if TYPE_CHECKING:
    from tidegate.drain.acknowledgement import (
        Acknowledgement,
        Evidence,
        Verdict,
        acknowledge,
        assumed,
        quorum,
        stragglers,
        unreachable,
    )
    from tidegate.drain.deadline import DEFAULT_BUDGET, Budget, gate_deadline
    from tidegate.drain.progress import Drain, EpochTooEarly, EventError, begin, resume
    from tidegate.drain.result import record, waiting_for
    from tidegate.drain.source import Question, Source, gate_exception, look, suspects
    from tidegate.drain.state import Mode, Policy, State
    from tidegate.drain.table import TRANSITIONS, UnlistedEvent, step

__all__ = [
    "DEFAULT_BUDGET",
    "TRANSITIONS",
    "Acknowledgement",
    "Budget",
    "Drain",
    "EpochTooEarly",
    "EventError",
    "Evidence",
    "Mode",
    "Policy",
    "Question",
    "Source",
    "State",
    "UnlistedEvent",
    "Verdict",
    "acknowledge",
    "assumed",
    "begin",
    "gate_deadline",
    "gate_exception",
    "look",
    "quorum",
    "record",
    "resume",
    "step",
    "stragglers",
    "suspects",
    "unreachable",
    "waiting_for",
]

__getattr__ = late(
    __name__,
    {
        "Acknowledgement": "acknowledgement",
        "Budget": "deadline",
        "DEFAULT_BUDGET": "deadline",
        "Drain": "progress",
        "EpochTooEarly": "progress",
        "EventError": "progress",
        "Evidence": "acknowledgement",
        "Mode": "state",
        "Policy": "state",
        "Question": "source",
        "Source": "source",
        "State": "state",
        "TRANSITIONS": "table",
        "UnlistedEvent": "table",
        "Verdict": "acknowledgement",
        "acknowledge": "acknowledgement",
        "assumed": "acknowledgement",
        "begin": "progress",
        "gate_deadline": "deadline",
        "gate_exception": "source",
        "look": "source",
        "quorum": "acknowledgement",
        "record": "result",
        "resume": "progress",
        "step": "table",
        "stragglers": "acknowledgement",
        "suspects": "source",
        "unreachable": "acknowledgement",
        "waiting_for": "result",
    },
)
