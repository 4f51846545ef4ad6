"""The kernel's own socket answers: read whole, or not at all."""

from __future__ import annotations

import socket
import struct

import pytest

from tidegate.dataplane import sockdiag
from tidegate.dataplane.facts import Unreadable
from tidegate.model.endpoint import canonical
from tidegate.observers import sockdiag as ask


def _message(state: int, sport: int, dport: int, unsent: int = 0, kind: int = 20, flags: int = 2) -> bytes:
    address = socket.inet_aton("127.17.1.2") + bytes(12), socket.inet_aton("127.16.0.11") + bytes(12)
    body = struct.pack("=BBBB", 2, state, 0, 0) + struct.pack("!HH", sport, dport) + address[0] + address[1]
    body += bytes(12) + struct.pack("=IIIII", 0, 0, unsent, 0, 77)
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


DONE = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)


def test_a_connection_is_read_with_what_is_unsent():
    (found,) = sockdiag.parse(_message(4, 8080, 40000, unsent=12) + DONE)
    assert (str(found.local), str(found.remote), found.state) == ("127.17.1.2:8080", "127.16.0.11:40000", "FIN_WAIT1")
    assert (found.unsent, found.inode, found.can_answer) == (12, 77, True)


def test_an_answer_without_its_end_is_not_an_answer_yet():
    with pytest.raises(sockdiag.Incomplete):
        sockdiag.parse(_message(1, 8080, 40000))


@pytest.mark.parametrize(
    "answer",
    [
        _message(1, 8080, 40000, flags=2 | 0x10) + DONE,
        _message(99, 8080, 40000) + DONE,
        _message(1, 8080, 40000, kind=21) + DONE,
        _message(1, 8080, 40000)[:-9],
        struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -13),
        b"\xff" * 40,
    ],
    ids=["interrupted", "unknown-state", "unknown-type", "cut-short", "error", "garbage"],
)
def test_what_is_not_understood_is_unreadable_never_empty(answer):
    assert isinstance(sockdiag.parse(answer), Unreadable)


class Netlink:
    """A socket that answers in small datagrams."""

    def __init__(self, *datagrams: bytes) -> None:
        self._datagrams = list(datagrams)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        pass

    def sendto(self, request: bytes, address: object) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return self._datagrams.pop(0)


def test_an_answer_of_many_datagrams_is_parsed_once(monkeypatch: pytest.MonkeyPatch):
    """It was parsed anew with each: 20 s for a few thousand sockets, in which the agent said nothing."""
    parsed = []
    real = sockdiag.parse
    monkeypatch.setattr(sockdiag, "parse", lambda answer, about: parsed.append(len(answer)) or real(answer))
    many = [_message(1, 8080, 40000 + number) for number in range(500)]
    monkeypatch.setattr(ask.socket, "socket", lambda *kind: Netlink(*many, DONE))
    found = ask.read(sockdiag.AF_INET)
    assert isinstance(found, tuple) and len(found) == 500 and len(parsed) == 1


@pytest.mark.parametrize("end", [b"", b"\xff" * 40, _message(1, 8080, 40000)[:-9] + b"\x01" * 40])
def test_an_answer_that_breaks_off_is_unreadable(monkeypatch: pytest.MonkeyPatch, end: bytes):
    monkeypatch.setattr(ask.socket, "socket", lambda *kind: Netlink(_message(1, 8080, 40000), end, b"", b""))
    assert isinstance(ask.read(sockdiag.AF_INET), Unreadable)


@pytest.mark.parametrize("address", ["127.77.1.1", "::ffff:127.77.1.1"])
def test_asked_about_an_address_only_what_listens_or_concerns_it_is_told(address: str):
    with socket.socket() as listener, socket.socket() as other:
        for one, at in ((listener, "127.77.1.1"), (other, "127.77.1.2")):
            one.bind((at, 0))
            one.listen()
        pairs = [(socket.create_connection(one.getsockname()), one.accept()[0]) for one in (listener, other)]
        found = ask.read(sockdiag.AF_INET, sockdiag.packed([canonical(address)]))
        whole = ask.read(sockdiag.AF_INET)
        assert isinstance(found, tuple) and isinstance(whole, tuple)
        at, beside = ("{}:{}".format(*one.getsockname()) for one in (listener, other))
        assert sorted(one.state for one in found if at in (str(one.local), str(one.remote))) == [
            "ESTABLISHED", "ESTABLISHED", "LISTEN"
        ]  # fmt: skip
        assert [one.state for one in found if beside in (str(one.local), str(one.remote))] == ["LISTEN"]
        assert {one for one in whole if beside in (str(one.local), str(one.remote))} - set(found)
        for pair in pairs:
            for one in pair:
                one.close()


def test_what_is_not_understood_is_left_out_for_no_address():
    odd = bytearray(_message(1, 8080, 40000))
    odd[16] = 77  # no address family
    assert isinstance(sockdiag.parse(bytes(odd) + DONE, sockdiag.packed(["192.0.2.9"])), Unreadable)
    assert sockdiag.parse(_message(1, 8080, 40000) + DONE, sockdiag.packed(["192.0.2.9"])) == ()


def test_the_machines_own_sockets_are_seen_and_those_that_wait_are_not():
    with socket.socket() as listener:
        listener.bind(("127.77.1.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        mine = _states(listener.getsockname())
        assert sorted(mine) == ["ESTABLISHED", "ESTABLISHED", "LISTEN"]
        client.close()
        server.close()
        assert _states(listener.getsockname()) == ["LISTEN"]


def _states(address: tuple[str, int]) -> list[str]:
    found = ask.read(sockdiag.AF_INET)
    assert isinstance(found, tuple), found
    at = f"{address[0]}:{address[1]}"
    return [one.state for one in found if at in (str(one.local), str(one.remote))]
