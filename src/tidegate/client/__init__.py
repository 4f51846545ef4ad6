"""The public async Python API.

- ``drain_pod(client, namespace, name, options) -> DrainResult``: cut, verify, delete; continues what was interrupted.
- ``plan_drain(...) -> DrainPlan`` and ``carry_out(client, plan, options)``: the same in two steps.
- ``status_of(client, kind, namespace, name) -> Status``: who gets traffic and why, node by node.

``client`` is what ``tidegate.kube.connect.open_api`` gives.
"""

from tidegate.client.drain import carry_out, drain_pod
from tidegate.client.options import VerbOptions
from tidegate.client.plan import DrainPlan, plan_drain
from tidegate.client.status import Status, status_of

__all__ = ["DrainPlan", "Status", "VerbOptions", "carry_out", "drain_pod", "plan_drain", "status_of"]
