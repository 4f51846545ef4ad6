"""Answers about deprecated kinds carry the real server's warning."""

from __future__ import annotations

import random

import pytest

from tidegate import vtime
from tidegate.kube.exchange import Request
from tidegate.lab.apiserver.server import ApiServer


@pytest.mark.parametrize(("plural", "warns"), [("endpoints", True), ("services", False)])
def test_endpoints_are_deprecated_with_every_answer(plural, warns):
    async def story():
        server = ApiServer(random.Random(0))
        response = await server.exchange(Request("GET", f"/api/v1/namespaces/default/{plural}"))
        return response.headers.get("warning", "")

    expected = '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    assert vtime.run(story()) == (expected if warns else "")
