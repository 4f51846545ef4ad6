"""Endpoints: one spelling, and what covers what."""

from __future__ import annotations

import pytest

from tidegate.model import Endpoint


@pytest.mark.parametrize("text", ["10.0.0.1:80", "[fd00::1]:8080", "127.0.0.1:1"])
def test_an_endpoint_reads_back_what_it_prints(text):
    assert str(Endpoint.parse(text)) == text


def test_one_address_has_one_spelling():
    assert Endpoint.parse("[FD00:0:0::1]:80") == Endpoint.parse("[fd00::1]:80")
    assert Endpoint.parse("[::ffff:10.0.0.1]:80") == Endpoint.parse("10.0.0.1:80")


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:65536", "::1:80", "[10.0.0.1]:80", "10.0.0.01:8", "h:1"],
)
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(ValueError):
        Endpoint.parse(text)


def test_port_zero_stands_for_every_port():
    anywhere, web, dns = Endpoint("10.0.0.1"), Endpoint("10.0.0.1", 80), Endpoint("10.0.0.1", 80, "UDP")
    assert anywhere.covers(web)
    assert web.covers(anywhere)
    assert not web.covers(dns)
    assert not web.covers(Endpoint("10.0.0.1", 81))
    assert not anywhere.covers(Endpoint("10.0.0.2", 80))
    assert str(anywhere) == "10.0.0.1:*"
