"""Frozen nouns decoded from Kubernetes JSON: only what we use, and errors that name the JSON path.

Public surface (each module has ``decode(obj) -> noun``, raising ``Malformed``):

- ``pod.Pod``, ``service.Service``, ``endpointslice.EndpointSlice``, ``node.Node``,
  ``workload.Workload`` (Deployment, ReplicaSet, StatefulSet, DaemonSet, Job).
- ``endpoint.Endpoint`` (``1.2.3.4:80``, port 0 = every port), ``epoch.Epoch`` (what a fence shows, and its codec).
- ``selector.parse / of_json / of_labels -> Selector``: ``matches``, ``unmet``.
- ``names``: every tidegate.dev label and annotation, with encode and decode pairs.
"""

from __future__ import annotations

from tidegate.model.decode import Malformed
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

__all__ = ["Endpoint", "Epoch", "Malformed"]
