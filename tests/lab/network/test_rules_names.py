"""The names of kube-proxy's chains, as the real dumps have them. Needs no kernel."""

from __future__ import annotations

from tidegate.lab.network.iptables_136 import IptablesPort
from tidegate.lab.network.nft_common import NftPort, hashed

from .packets_world import entry


def test_nftables_names_begin_with_a_hash_of_themselves():
    port = NftPort.of(entry("10.244.1.11:8080"))
    assert port.cluster_chain == "service-SUSTUHLJ-default/web/tcp/http"
    assert port.endpoint_base("10.244.1.11:8080") == "7FUMELAF-default/web/tcp/http__10.244.1.11/8080"


def test_a_name_too_long_for_nft_is_cut():
    name = hashed("x" * 300)
    assert len(name) == 240 and name.endswith("x...")


def test_iptables_names_are_hashes():
    port = IptablesPort.of(entry("10.244.1.11:8080"))
    assert port.cluster_chain == "KUBE-SVC-CDGGSHYLG3RE2FKL"
    assert port.endpoint_chain("10.244.1.11:8080") == "KUBE-SEP-ELX6N4Z5RGB67TLC"
