"""tidegate inspect: a saved dump, its routes, and an exit code a script can wait for."""

from __future__ import annotations

import gzip
import io
import json
import sys

import golden_dumps as dumps
import pytest

from tidegate.cli import inspect as command
from tidegate.cli.main import main

F = dumps.GOLDEN / "v1.36.2-nftables-f-nodeport-sessionaffinity-nft-json.gz"
B = dumps.GOLDEN / "v1.36.2-iptables-b-1left-by-relabel-iptables-save.txt"
G = dumps.GOLDEN / "v1.36.2-nftables-g-udp-conntrack.txt"
WEB_1, WEB_2, DNS_1 = "10.244.1.11:8080", "10.244.1.12:8080", "10.244.1.21:8080"


@pytest.fixture
def run(capsys, monkeypatch):
    """``run("-o", "json", stdin=b"...")``: (exit code, stdout, stderr)."""

    def running(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as leaving:
            main(["inspect", *map(str, arguments)])
        told = capsys.readouterr()
        return leaving.value.code, told.out, told.err

    return running


def test_text_has_a_line_for_each_route(run):
    code, out, _ = run(F)
    assert code == 0
    assert out.splitlines() == [
        "cluster-ip 10.96.1.1:80/TCP default/web:http -> 10.244.1.11:8080, 10.244.1.12:8080, 10.244.1.13:8080",
        "cluster-ip 10.96.1.2:80/TCP default/np:http -> 10.244.1.11:8080, 10.244.1.12:8080, 10.244.1.13:8080",
        "cluster-ip 10.96.0.1:443/TCP default/kubernetes:https -> 10.77.0.1:26443",
        "node-port 10.77.0.2:30080/TCP default/np:http -> 10.244.1.11:8080, 10.244.1.12:8080, 10.244.1.13:8080",
    ]


@pytest.mark.parametrize(
    ("file", "endpoint", "code"),
    [
        (F, WEB_1, 1),
        (F, "10.244.1.99:8080", 0),
        (F, "10.244.1.11:9", 0),
        (B, WEB_1, 0),
        (B, WEB_2, 1),
        (G, DNS_1, 1),
        (G, WEB_1, 0),
    ],
)
def test_asked_about_an_endpoint_the_exit_code_is_the_answer(run, file, endpoint, code):
    assert run(file, "--endpoint", endpoint)[0] == code
    found, out, _ = run(file, "--endpoint", endpoint, "-o", "json")
    assert found == code
    document = json.loads(out)
    assert bool(document["routes"] or document["opening"]) == (code == 1)
    assert {to for route in document["routes"] for to in route["endpoints"]} <= {endpoint}


def test_standard_input_may_be_packed(run):
    plain = dumps.text(F.stem).encode()
    assert run("-", stdin=plain) == run("-", stdin=gzip.compress(plain)) == run(F)


def test_a_fence_is_shown_by_install(run):
    dump = dumps.text(F.stem).replace("default/kubernetes", "tidegate-system/tidegate-fence-k3f9")
    dump = dump.replace("10.77.0.1", "198.18.0.0").replace("26443", "42")
    code, out, _ = run("-", "-o", "json", stdin=dump.encode())
    assert (code, json.loads(out)["fence"]) == (0, {"k3f9": 41})
    bare = dumps.text(B.stem).replace("10.77.0.1:26443", "198.18.0.0:42").encode()
    assert json.loads(run("-", "-o", "json", stdin=bare)[1])["fence"] == {}
    assert "fence k3f9/41" in run("-", "--fence", "10.96.0.1=k3f9", stdin=bare)[1]


def test_what_is_not_understood_exits_4_and_says_where(run):
    dump = dumps.text(B.stem).replace("-A KUBE-SERVICES -m comment", "-A KUBE-SERVICES -m frobnicate -m comment")
    code, out, _ = run("-", "--endpoint", WEB_1, stdin=dump.encode())
    assert code == 4
    assert "unreadable: table ip nat, chain KUBE-SERVICES, line" in out
    assert "no route" not in out
    assert run("-", stdin=dump.encode())[0] == 4


def test_a_route_that_is_seen_is_an_answer_whatever_else_is_unreadable(run):
    dump = dumps.text(B.stem).replace("-A KUBE-SERVICES -m comment", "-A KUBE-SERVICES -m frobnicate -m comment")
    assert run("-", "--endpoint", WEB_2, stdin=dump.encode())[0] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\xff\xfe\x00\x01",
        b"hello\n",
        b"{}",
        b"\x1f\x8b\x08garbage",
        gzip.compress(b"*nat\n:A - [0:0]", mtime=0),
    ],
)
@pytest.mark.parametrize("more", [(), ("--endpoint", WEB_1), ("-o", "json")])
def test_garbage_exits_4(run, content, more):
    assert run("-", *more, stdin=content)[0] == 4


def test_packed_and_cut_short_exits_4(run):
    packed = gzip.compress(dumps.text(F.stem).encode())
    assert run("-", stdin=packed[: len(packed) // 2])[0] == 4


def test_the_format_can_be_said_and_a_wrong_one_is_unreadable(run):
    assert run(B, "--format", "iptables-save")[0] == 0
    assert run(B, "--format", "ipvsadm")[0] == 4


def test_more_than_fits_is_refused_before_it_is_unpacked(run, monkeypatch):
    monkeypatch.setattr(command, "BYTES_MAX", 1000)
    code, _, err = run(F)
    assert code == 2
    assert "dump one table" in err


@pytest.mark.parametrize(
    "arguments",
    [(F, "--endpoint", "web-1"), (F, "--endpoint", "10.244.1.11"), (F, "--fence", "k3f9"), ("no-such-file",), ()],
)
def test_bad_input_exits_2(run, arguments):
    assert run(*arguments)[0] == 2
