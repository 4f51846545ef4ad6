"""The objects that benchmarks feed through Tidegate are real enough for it to decode."""

from __future__ import annotations

from bench.samples import endpoint_slice, running_pod

from tidegate.model import endpointslice, pod


def test_the_sample_pod_is_a_ready_gated_pod():
    decoded = pod.decode(running_pod(7))
    assert decoded.is_ready
    assert decoded.is_gated
    assert decoded.ips == ("10.244.0.7",)


def test_the_sample_slice_has_five_ready_endpoints():
    decoded = endpointslice.decode(endpoint_slice(7))
    assert len(decoded.endpoints) == 5
    assert all(endpoint.is_ready for endpoint in decoded.endpoints)
