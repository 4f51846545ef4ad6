"""The public async Python API: the verbs of the command line.

- ``drain_pod(client, namespace, name, options) -> DrainResult``: replacement, cut, verify, delete; continues what was
  interrupted.
- ``plan_node(client, name, options) -> NodePlan`` and ``drain_node(client, plan, options) -> NodeResult``: every pod of
  a node, which is cordoned first.
- ``cut_pod(...)``: cut, verify, keep.
- ``isolate_pod(client, (namespace, name), keep, options)``: out of its owner's hands, with its traffic or without.
- ``restore_pod(client, (namespace, name), options)``: its labels back; its replacement is drained.
- ``plan_pod(client, (namespace, name), verb, options, is_witnessed) -> PodPlan`` and ``carry_out(client, plan,
  options)``: the same in two steps.
- ``verify_pod(client, namespace, name, VerifyOptions) -> Verification``: does traffic reach it? Changes nothing.
- ``prepare_service(client, About(namespace, service, deployments), PrepareOptions) -> Prepared``: a label of its own
  for a Service, or back.
- ``status_of(client, kind, namespace, name) -> Status``: who gets traffic and why, node by node; ``orphans_of``: held
  pods that nobody is at work on; ``follow_status``: the same whenever it changes.
- ``trace_pod(client, namespace, name) -> Trace``, ``follow_pod``: the moments of a pod's life, each with its source.
- ``client.observe.observe(client, subject, seconds, into)``: pods that leave, and who routed to them after SIGTERM.
- ``client.ledger.entries_of(client, namespace, pod, ledger)``: what the ledgers have of a pod's retirements.
- ``client.release.command``: ``plan_release``, ``begin_release``, ``ask_release``, ``carry_on``: releases.
- ``examine(client, namespace) -> Examination``: what doctor looks at, each finding with its next step.

``client`` is what ``tidegate.kube.connect.open_api`` gives. A name's module is imported when the name is first used:
a command pays for its own verb and for no other (``tidegate.late``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.late import late

if TYPE_CHECKING:
    from tidegate.client.cut import cut_pod
    from tidegate.client.doctor import Examination, examine
    from tidegate.client.drain import carry_out, drain_pod
    from tidegate.client.isolate import isolate_pod
    from tidegate.client.node import NodePlan, NodeResult, drain_node, plan_node
    from tidegate.client.options import VerbOptions
    from tidegate.client.plan import PodPlan, plan_pod
    from tidegate.client.prepare.plan import PrepareOptions
    from tidegate.client.prepare.run import Prepared, prepare_service
    from tidegate.client.prepare.scene import About
    from tidegate.client.restore import restore_pod
    from tidegate.client.status import Status, follow_status, orphans_of, status_of
    from tidegate.client.trace import Trace, follow_pod, trace_pod
    from tidegate.client.verification import Verification
    from tidegate.client.verify import VerifyOptions, verify_pod

__all__ = [
    "About",
    "Examination",
    "NodePlan",
    "NodeResult",
    "PodPlan",
    "PrepareOptions",
    "Prepared",
    "Status",
    "Trace",
    "VerbOptions",
    "Verification",
    "VerifyOptions",
    "carry_out",
    "cut_pod",
    "drain_node",
    "drain_pod",
    "examine",
    "follow_pod",
    "follow_status",
    "isolate_pod",
    "orphans_of",
    "plan_node",
    "plan_pod",
    "prepare_service",
    "restore_pod",
    "status_of",
    "trace_pod",
    "verify_pod",
]  # fmt: skip

__getattr__ = late(
    __name__,
    {
        "About": "prepare.scene",
        "Examination": "doctor",
        "NodePlan": "node",
        "NodeResult": "node",
        "PodPlan": "plan",
        "PrepareOptions": "prepare.plan",
        "Prepared": "prepare.run",
        "Status": "status",
        "Trace": "trace",
        "VerbOptions": "options",
        "Verification": "verification",
        "VerifyOptions": "verify",
        "carry_out": "drain",
        "cut_pod": "cut",
        "drain_node": "node",
        "drain_pod": "drain",
        "examine": "doctor",
        "follow_pod": "trace",
        "follow_status": "status",
        "isolate_pod": "isolate",
        "orphans_of": "status",
        "plan_node": "node",
        "plan_pod": "plan",
        "prepare_service": "prepare.run",
        "restore_pod": "restore",
        "status_of": "status",
        "trace_pod": "trace",
        "verify_pod": "verify",
    },
)
