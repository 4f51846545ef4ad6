"""/proc/net/tcp and the question whether a pod is quiet. The samples are from a real kernel (Linux 6.18)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.dataplane import Quiet, Socket, Unreadable, sockets
from tidegate.model.endpoint import Endpoint

PROC = Path(__file__).parent.parent / "golden" / "proc"
POD = Endpoint("127.99.1.5", 18080)

# One listener; clients from 127.0.0.1 (:8A00 half-closed, :8A10, :8A14 and :8A16 open) and from 127.99.0.11. The two
# connections with inode 0 wait in the accept queue: the app does not know of them yet.
REAL = (PROC / "net-tcp.txt").read_text("ascii")
# A dual-stack listener on :: (46A2) with an IPv4 client, and one on ::1 (46A1).
REAL6 = (PROC / "net-tcp6.txt").read_text("ascii")
HEADER = REAL.splitlines()[0]


def table(text: str = REAL) -> tuple[Socket, ...]:
    parsed = sockets.parse(text)
    assert not isinstance(parsed, Unreadable)
    return parsed


def one(state: str, unsent: int = 0, local: Endpoint = POD) -> Socket:
    return Socket(local, Endpoint("127.99.0.11", 40000), state, unsent, 1)


LISTENING = Socket(POD, Endpoint("0.0.0.0", 0), "LISTEN", 0, 7)


def asked(*connections: Socket, **more) -> Quiet:
    return sockets.quiet([(LISTENING, *connections)], [POD], **more)


def test_a_real_table_is_read():
    listener, first, *_ = table()
    assert listener == Socket(Endpoint("127.99.1.5", 18080), Endpoint("0.0.0.0", 0), "LISTEN", 0, 337892)
    assert str(first) == "127.0.0.1:35348 -> 127.99.1.5:18080 ESTABLISHED"
    assert len(table()) == 9


def test_every_open_connection_of_a_real_table_counts_the_accept_queue_included():
    quiet = sockets.quiet([table()], [POD])
    assert [socket.remote.port for socket in quiet.live] == [0x8A14, 0x8A10, 0x8A00, 0xE213, 0x8A16]
    assert str(quiet) == "5 in flight: 127.0.0.1:35348, 127.0.0.1:35344, 127.0.0.1:35328 and 2 more"


def test_connections_of_the_kubelet_are_no_clients():
    kubelet = sockets.owned_by(table(), frozenset({337893}))
    quiet = sockets.quiet([table()], [POD], kubelet)
    assert [socket.remote.address for socket in quiet.live] == ["127.0.0.1"] * 4


def test_an_ipv4_client_of_a_dual_stack_listener_is_seen():
    quiet = sockets.quiet([table(REAL6)], [Endpoint("127.99.1.6", 18082)])
    assert [str(socket.remote) for socket in quiet.live] == ["127.0.0.1:59954"]


def test_ipv6_addresses_are_read():
    quiet = sockets.quiet([table(REAL6)], [Endpoint("::1", 18081)])
    assert [str(socket) for socket in quiet.live] == ["[::1]:47804 -> [::1]:18081 ESTABLISHED"]


@pytest.mark.parametrize("state", ["ESTABLISHED", "CLOSE_WAIT", "SYN_RECV"])
def test_a_connection_we_have_not_closed_can_still_carry_an_answer(state):
    assert not asked(one(state)).is_quiet


@pytest.mark.parametrize("state", ["FIN_WAIT1", "CLOSING", "LAST_ACK"])
def test_a_closed_connection_counts_for_as_long_as_bytes_are_unsent(state):
    assert not asked(one(state, unsent=1)).is_quiet
    assert asked(one(state)).is_quiet


@pytest.mark.parametrize("state", ["FIN_WAIT2", "TIME_WAIT", "CLOSE", "SYN_SENT", "LISTEN"])
def test_other_states_carry_no_answer(state):
    assert asked(one(state, unsent=9)).is_quiet


def test_the_pods_own_outgoing_connections_do_not_count():
    assert asked(one("ESTABLISHED", local=Endpoint(POD.address, 51000))).is_quiet


def test_other_pods_connections_do_not_count():
    assert asked(one("ESTABLISHED", local=Endpoint("127.99.1.6", POD.port))).is_quiet


def test_without_the_listen_socket_the_answer_is_unreadable_not_quiet():
    quiet = sockets.quiet([()], [POD])
    assert not quiet.is_quiet
    assert str(quiet) == ("sockets unreadable: no LISTEN socket for 127.99.1.5:18080: is this the pod's own network?")


def test_a_wildcard_listener_serves_the_endpoint():
    everywhere = replace(LISTENING, local=Endpoint("0.0.0.0", POD.port))
    assert sockets.quiet([(everywhere,)], [POD]).is_quiet
    assert not sockets.quiet([(everywhere, one("ESTABLISHED"))], [POD]).is_quiet


def test_each_endpoint_needs_its_own_listener():
    assert not sockets.quiet([(LISTENING,)], [POD, Endpoint(POD.address, 9090)]).is_quiet


def test_every_port_of_an_address_can_be_asked_about_at_once():
    assert sockets.quiet([(LISTENING,)], [Endpoint(POD.address)]).is_quiet
    assert not sockets.quiet([(LISTENING, one("ESTABLISHED"))], [Endpoint(POD.address)]).is_quiet


def test_a_connection_is_no_listener():
    assert not sockets.quiet([(one("FIN_WAIT2"),)], [POD]).is_quiet


def test_where_nothing_is_said_to_listen_nothing_need():
    anywhere = Endpoint(POD.address)
    assert sockets.quiet([()], [anywhere]).is_quiet
    outgoing = one("ESTABLISHED", local=Endpoint(POD.address, 51000))
    assert sockets.quiet([(LISTENING, outgoing)], [anywhere]).is_quiet
    everywhere = replace(LISTENING, local=Endpoint("0.0.0.0", POD.port))
    assert not sockets.quiet([(everywhere, one("ESTABLISHED"))], [anywhere]).is_quiet


def test_deaf_is_a_pod_that_only_does_not_listen():
    assert sockets.quiet([()], [POD]).is_deaf
    assert not sockets.quiet([(LISTENING,)], [POD]).is_deaf
    assert not sockets.quiet([Unreadable("busy"), ()], [POD]).is_deaf
    assert not sockets.quiet([(LISTENING, one("ESTABLISHED"))], [POD, Endpoint(POD.address, 9090)]).is_deaf


def test_one_unreadable_table_makes_the_whole_answer_unreadable():
    assert not sockets.quiet([(LISTENING,), Unreadable("permission denied", "/proc/net/tcp6")], [POD]).is_quiet


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "garbage",
        REAL.replace(HEADER, ""),
        HEADER + "\n   4: 0501637F:46A0 00000000:0000 0D 0:0 0:0 0 0 0 1",
        HEADER + "\n   4: 0501637F:46A0 00000000:0000 01",
        HEADER + "\n   4: 0501637F:46A0 00000000:0000 01 00000000 00:00 0 0 0 1",
        HEADER + "\n   4: 0501637F46A0 00000000:0000 01 0:0 0:0 0 0 0 1",
        HEADER + "\n   4: 05016:46A0 00000000:0000 01 0:0 0:0 0 0 0 1",
        HEADER + "\n   4: 0501637F:46A0 00000000:0000 01 0:0 0:0 0 0 0 x",
    ],
)
def test_a_table_that_is_not_understood_is_unreadable(text):
    parsed = sockets.parse(text)
    assert isinstance(parsed, Unreadable)


def test_an_unreadable_line_is_named():
    parsed = sockets.parse(HEADER + "\n   4: nonsense")
    assert str(parsed) == "/proc/net/tcp:2: IndexError('list index out of range'): '4: nonsense'"


def test_the_kernels_own_table_is_readable_now():
    with open("/proc/net/tcp", encoding="ascii") as lines:
        assert isinstance(sockets.parse(lines.read()), tuple)


@given(st.text(alphabet="0123456789ABCDEF: \nx", max_size=300))
def test_whatever_the_table_says_parsing_never_raises(body):
    parsed = sockets.parse(HEADER + "\n" + body)
    assert isinstance(parsed, tuple | Unreadable)
