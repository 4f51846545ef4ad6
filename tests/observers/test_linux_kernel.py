"""A real kernel as its node's witness: played in a network namespace of its own, with rules written by hand.

What a real kube-proxy writes is in ``tests/realcluster/test_kube_proxy.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading

import pytest

from tidegate.agent import holder
from tidegate.dataplane.conntrack import parse as parse_conntrack
from tidegate.dataplane.facts import Facts
from tidegate.drain.acknowledgement import Verdict, acknowledge
from tidegate.drain.stranded import stranded
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.kernel import Reading
from tidegate.observers.linux import LinuxKernel, NamespacedSockets, commands, conntrack, gate, idleflows, rules
from tidegate.observers.linux import kernel as kernel_module
from tidegate.observers.linux.commands import CommandFailed
from tidegate.observers.linux.generation import Generations
from tidegate.observers.linux.nftables import Questions

INSIDE = "TIDEGATE_TEST_LINUX_KERNEL"
SCRIPT = """
ip link set lo up && ip address add 192.0.2.1/32 dev lo && ip address add 2001:db8::1/128 dev lo nodad &&
for net in 10.96.0.0/16 10.244.0.0/16 fd00:10::/32; do ip route add $net dev lo; done && exec "$@"
"""
"""Documentation addresses on the namespace's own loopback device: nothing can leave."""
APART = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--map-root-user"]
TOOLS = ("unshare", "ip", "nft", "conntrack", "iptables-nft")
POD, POD6 = Endpoint("10.244.9.11", 8080), Endpoint("fd00:10:244::b", 8080)
EPOCH = Epoch("main", 41)
FENCES = {"10.96.0.7": "main", "fd00:10:96::7": "main"}
FENCED = f"ip daddr 10.96.0.7 tcp dport 1 dnat to {EPOCH.endpoint4()}"
FOUR = f"""
table ip kube-proxy {{
  chain dispatch {{
    ip daddr 10.96.0.80 tcp dport 80 dnat to 10.244.9.11:8080
    {FENCED}
  }}
  chain out {{ type nat hook output priority -100; jump dispatch; }}
  chain in {{ type nat hook prerouting priority -100; jump dispatch; }}
}}
"""
SIX = """
table ip6 kube-proxy {{
  chain dispatch {{
    ip6 daddr fd00:10:96::80 tcp dport 80 dnat to [fd00:10:244::b]:8080
    {fence}
  }}
  chain out {{ type nat hook output priority -100; jump dispatch; }}
}}
"""
SIX_FENCED = SIX.format(fence=f"ip6 daddr fd00:10:96::7 tcp dport 1 dnat to {EPOCH.endpoint6()}")

pytestmark = pytest.mark.realtime
inside = pytest.mark.skipif(not os.environ.get(INSIDE), reason="played in a network namespace of its own")


@pytest.mark.skipif(bool(os.environ.get(INSIDE)), reason="we are inside it already")
def test_the_stories_of_a_real_kernel_hold_in_a_network_namespace_of_their_own():
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        pytest.skip(f"no {', '.join(absent)} (Debian: util-linux, iproute2, nftables, conntrack, iptables)")
    apart = [*APART, "sh", "-c", SCRIPT, "sh"]
    if subprocess.run([*apart, "nft", "list", "ruleset"], capture_output=True).returncode:
        pytest.skip("this machine lets us make no network namespace with rules of its own")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    ran = subprocess.run(
        [*apart, *command], env={**os.environ, INSIDE: "1"}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "28 passed" in ran.stdout, ran.stdout


@pytest.fixture
def kernel():
    made = LinuxKernel("node-1", "192.0.2.1", lambda: FENCES, ("10.244.9.0/24", "fd00:10:244::/64"))
    yield made
    made.close()
    commands.output("nft", "flush", "ruleset")
    subprocess.run(["conntrack", "-F"], capture_output=True)


def commit(script):
    commands.output("nft", "-f", "-", text=script)


async def verdict(kernel, *endpoints):
    asked = endpoints or (POD,)
    return acknowledge((await kernel.read(asked)).facts, asked, EPOCH)


@inside
async def test_routes_of_every_table_are_told_and_the_fence(kernel):
    commit(FOUR + SIX_FENCED)
    facts = (await kernel.read(None)).facts
    assert facts.unreadable == () and set(facts.fence) == {EPOCH}
    assert {str(to) for route in facts.routes for to in route.endpoints} >= {str(POD), str(POD6)}
    assert facts.dump == "linux nftables, generation 1" and facts.source == "node-1"
    assert (await verdict(kernel, POD, POD6)).verdict is Verdict.REFUTED


@inside
async def test_a_route_of_the_other_backend_is_not_missed(kernel):
    """Rules of a mode left behind translate too: here iptables-nft's, whose targets nft does not print."""
    commit("\n".join(line for line in FOUR.splitlines() if "8080" not in line))
    assert (await verdict(kernel)).verdict is Verdict.CONFIRMED
    rule = ["-d", "10.96.0.80", "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to", str(POD)]
    commands.output("iptables-nft", "-t", "nat", "-A", "PREROUTING", *rule)
    said = await verdict(kernel)
    assert said.verdict is Verdict.REFUTED, said
    assert (await kernel.read(None)).facts.dump.startswith("linux nftables, iptables-nft, ")


@inside
async def test_a_family_that_is_served_and_shows_no_fence_blocks_by_name(kernel):
    commit(FOUR + SIX.format(fence=""))
    said = await verdict(kernel, Endpoint("10.244.9.99"))
    assert said.verdict is Verdict.UNREADABLE
    assert "the IPv6 fence of main: no epoch is shown at fd00:10:96::7" in str(said)


@inside
async def test_a_family_in_which_nothing_translates_needs_no_fence(kernel):
    commit(FOUR)
    assert (await verdict(kernel, Endpoint("10.244.9.99"), Endpoint("fd00:10:244::99"))).verdict is Verdict.CONFIRMED


@inside
async def test_a_family_that_the_fence_does_not_have_is_not_vouched_for_by_the_other(kernel):
    """A cluster that became dual-stack: Services that were there keep their one family until somebody writes them."""
    with contextlib.closing(LinuxKernel("node-1", "192.0.2.1", lambda: {"10.96.0.7": "main"})) as of_one_family:
        commit(FOUR + SIX.format(fence=""))
        said = await verdict(of_one_family, Endpoint("fd00:10:244::99"))
        assert said.verdict is Verdict.UNREADABLE, said
        assert "the fence of main: it has no IPv6 address, and IPv6 is routed here" in str(said)
        assert (await verdict(of_one_family, Endpoint("10.244.9.99"))).verdict is Verdict.CONFIRMED


@inside
async def test_the_epoch_of_one_family_is_not_taken_for_the_others(kernel):
    behind = Epoch("main", EPOCH.number - 1)
    commit(FOUR + SIX.format(fence=f"ip6 daddr fd00:10:96::7 tcp dport 1 dnat to {behind.endpoint6()}"))
    said = await verdict(kernel, Endpoint("10.244.9.99"))
    assert said.verdict is Verdict.PENDING and "shows fence 40, 41 is needed" in str(said)


@inside
async def test_until_the_fences_are_known_nothing_is_readable():
    kernel = LinuxKernel("node-1", "192.0.2.1", lambda: None)
    assert "the fence's Services are not known" in str(await verdict(kernel))


@inside
async def test_a_commit_is_told_at_once_and_nothing_is_read_while_there_is_none(kernel, monkeypatch):
    commit(FOUR)
    known = await kernel.read((POD,))
    readings = []
    whole = rules.read
    monkeypatch.setattr(rules, "read", lambda *asked: readings.append(1) or whole(*asked))
    loop = asyncio.get_running_loop()
    assert (await kernel.read_after(known.generation, 0.3, (POD,))).generation == known.generation
    assert not readings
    loop.call_later(0.2, commit, "flush chain ip kube-proxy dispatch\n")
    began = loop.time()
    found = await kernel.read_after(known.generation, 10.0, (POD,))
    assert found.generation != known.generation and found.facts.routes == ()
    assert 0.15 < loop.time() - began < 2.0


@inside
async def test_a_handshake_that_no_route_shows_any_more_is_told(kernel):
    commit(FOUR)
    with contextlib.closing(socket.socket()) as client:
        client.setblocking(False)
        assert client.connect_ex(("10.96.0.80", 80))
        commit("flush chain ip kube-proxy dispatch\n")
        commit(f"add rule ip kube-proxy dispatch ip daddr 10.96.0.7 tcp dport 1 dnat to {EPOCH.endpoint4()}")
        said = await verdict(kernel)
        assert said.verdict is Verdict.PENDING and "a connection is being opened: SYN_SENT" in str(said), said


@inside
@pytest.mark.parametrize("module", ["nftables", "conntrack"])
async def test_what_the_kernel_does_not_tell_is_unreadable_by_its_name(kernel, module, monkeypatch):
    commit(FOUR)

    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(*{"nftables": (Questions, "chains"), "conntrack": (conntrack, "_dump")}[module], refused)
    said = await verdict(kernel, Endpoint("10.244.9.99"))
    assert said.verdict is Verdict.UNREADABLE and "not permitted" in str(said), said


@inside
async def test_connections_are_told_as_conntrack_prints_them_and_of_endpoints_those_that_open(kernel):
    commit(FOUR)
    here = Endpoint("192.0.2.1")
    listening = socket.create_server((here.address, 8080))
    with contextlib.closing(listening), contextlib.closing(socket.create_connection((here.address, 8080))):
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.sendto(b"?", (here.address, 9))
            printed = parse_conntrack(commands.output("conntrack", "-L").decode()).tracked
            everything = conntrack.read(None)[0]
            assert sorted(map(str, everything)) == sorted(map(str, printed)) and len(everything) == 2
            assert [one.protocol for one in conntrack.read((here,))[0]] == ["UDP"], "nothing of TCP is being opened"
            many = (here, *(Endpoint(f"10.244.8.{last}") for last in range(9)))
            assert [one.protocol for one in conntrack.read(many)[0]] == ["UDP"]
    commit("flush chain ip kube-proxy dispatch\n")


@inside
@pytest.mark.parametrize(("is_late", "is_many"), [(True, False), (True, True), (False, True)])
async def test_connections_are_read_beside_the_rules_and_again_where_a_commit_came_between(
    kernel, is_late, is_many, monkeypatch
):
    """One that the rule of before has just made is not missed."""
    commit(FOUR)
    asked = (POD, *(Endpoint(f"10.244.8.{last}") for last in range(9 if is_many else 0)))
    await kernel.read(asked)
    commit(f"add chain ip kube-proxy other\nadd rule ip kube-proxy other ip daddr {POD.address} accept\n")
    begun, readings = kernel._begun_early, []
    opened, read = contextlib.closing(socket.socket()), conntrack.read

    def begun_and_read(endpoints):
        early = begun(endpoints)
        early[1].result()
        client.setblocking(False)
        assert client.connect_ex(("10.96.0.80", 80))
        if is_late:
            commit(f"flush chain ip kube-proxy dispatch\nadd rule ip kube-proxy dispatch {FENCED}\n")
        return early

    monkeypatch.setattr(kernel, "_begun_early", begun_and_read)
    monkeypatch.setattr(conntrack, "read", lambda *asked: readings.append(1) or read(*asked))
    with opened as client:
        said = await verdict(kernel, *asked)
    assert len(readings) == 1 + is_late
    assert said.verdict is (Verdict.PENDING if is_late else Verdict.REFUTED), said
    commit("flush chain ip kube-proxy dispatch\n")


@inside
async def test_rules_without_a_generation_are_read_before_the_connections(kernel, monkeypatch):
    commit(FOUR)
    await kernel.read((POD,))
    readings, read = [], conntrack.read
    monkeypatch.setattr(rules, "has_legacy", lambda: True)
    monkeypatch.setattr(rules, "_ipvs_lines", lambda: 3)
    monkeypatch.setattr(conntrack, "read", lambda *asked: readings.append(1) or read(*asked))
    await kernel.read((POD,))
    assert len(readings) == 2


def tcp_to(port):
    rule = f"ip daddr 10.96.0.80 tcp dport 80 dnat to 192.0.2.1:{port}"
    return f"table ip kube-proxy {{\nchain dispatch {{\n{FENCED}\n{rule}\n}}\n}}\n"


def ended_by(server, port):
    """A connection through the rules from one port, which the server ends: orderly where ``linger`` is not set."""
    with contextlib.closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.settimeout(2.0)
        client.bind(("192.0.2.1", port))
        client.connect(("10.96.0.80", 80))
        taken, _ = server.accept()
        with contextlib.closing(taken):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(ConnectionResetError):
            client.recv(1)


@inside
async def test_a_connection_that_the_pod_reset_holds_a_drain_up_for_the_next_from_its_port_goes_the_same_way(kernel):
    """The kernel keeps it in CLOSE for 10 s, and the rules of now have no say in that."""
    commit(f"{FOUR}flush chain ip kube-proxy dispatch\n{tcp_to(8080)}")
    asked = Endpoint("192.0.2.1", 8080)
    with contextlib.ExitStack() as stack:
        old, new = (stack.enter_context(socket.create_server(("192.0.2.1", port))) for port in (8080, 8081))
        ended_by(old, 41000)
        commit(f"flush chain ip kube-proxy dispatch\n{tcp_to(8081)}")
        said = await verdict(kernel, asked)
        assert said.verdict is Verdict.PENDING and "CLOSE 192.0.2.1:41000 -> 10.96.0.80:80" in str(said), said
        many = (asked, *(Endpoint(f"10.244.8.{last}") for last in range(9)))
        assert (await verdict(kernel, *many)).verdict is Verdict.PENDING
        ended_by(old, 41000)  # would wait for ever at ``new``
        subprocess.run(["conntrack", "-D", "-p", "tcp", "--orig-port-src", "41000"], capture_output=True)
        assert (await verdict(kernel, asked)).verdict is Verdict.CONFIRMED
        ended_by(new, 41000)
    commit("flush chain ip kube-proxy dispatch\n")


def udp_to(port):
    rule = f"ip daddr 10.96.0.53 udp dport 53 dnat to 192.0.2.1:{port}"
    return f"table ip kube-proxy {{\nchain dispatch {{\n{FENCED}\n{rule}\n}}\n}}\n"


@inside
async def test_a_udp_flow_that_its_rules_have_left_goes_on_until_the_agent_moves_it_and_no_other_does(kernel):
    """The one entry, by its id: what was dialled at the pod itself stays, and what was routed anew since."""
    commit(f"{FOUR}flush chain ip kube-proxy dispatch\n{udp_to(5300)}")
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(4)]
        old, new, client, direct = made
        for one, port in ((old, 5300), (new, 5301)):
            one.bind(("192.0.2.1", port))
        for one in made:
            one.settimeout(2.0)
        client.connect(("10.96.0.53", 53))
        direct.connect(("192.0.2.1", 5300))
        client.send(b"1")
        direct.send(b"direct")
        assert {old.recv(9), old.recv(9)} == {b"1", b"direct"}
        asked = Endpoint("192.0.2.1", 5300, "UDP")
        assert stranded((await kernel.read((asked,))).facts, (asked,), EPOCH) == (), "it is still routed"
        commit(f"flush chain ip kube-proxy dispatch\n{udp_to(5301)}")
        client.send(b"2")
        assert old.recv(9) == b"2"

        found = stranded((await kernel.read((asked,))).facts, (asked,), EPOCH)
        assert [str(one.destination) for one in found] == ["10.96.0.53:53"]
        assert await kernel.forget(found) == 1
        client.send(b"3")
        assert new.recv(9) == b"3"
        assert await kernel.forget(found) == 0, "what it is now is another entry"
        left = {(str(one.destination), one.endpoint.port) for one in conntrack.read((Endpoint("192.0.2.1"),))[0]}
        assert left == {("10.96.0.53:53", 5301), ("192.0.2.1:5300", 5300)}
    commit("flush chain ip kube-proxy dispatch\n")


@inside
async def test_a_flow_of_udp_that_is_not_translated_here_is_told_until_nothing_has_come_by_it_for_a_while(
    kernel, monkeypatch
):
    """On the pod's own node every flow from another node stands so, for 120 s after its last datagram."""
    monkeypatch.setattr(idleflows, "QUIET_SECONDS", 0.5)
    commit(FOUR)
    asked = Endpoint("192.0.2.1", 5300, "UDP")
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.sendto(b"?", ("192.0.2.1", 5300))
        said = await verdict(kernel, asked)
        assert said.verdict is Verdict.PENDING and "192.0.2.1:5300 -> 192.0.2.1:5300" in str(said)
        await asyncio.sleep(0.6)
        assert (await verdict(kernel, asked)).verdict is Verdict.CONFIRMED
        await asyncio.sleep(idleflows.SLACK_SECONDS + 0.5)
        client.sendto(b"?", ("192.0.2.1", 5300))
        assert (await verdict(kernel, asked)).verdict is Verdict.PENDING
    commit("flush chain ip kube-proxy dispatch\n")


@inside
async def test_the_gates_redirect_is_made_once_and_put_back_and_taken_away(kernel):
    generations = Generations()
    await kernel.redirect(15299, "192.0.2.1:15299")
    made = generations.now()
    await kernel.redirect(15299, "192.0.2.1:15299")
    commit("table ip other { }")
    await kernel.redirect(15299, "192.0.2.1:15299")
    assert generations.now() == made + 1, "it was made anew though nothing was amiss"
    for damage in ("delete table inet tidegate", "flush chain inet tidegate output"):
        commit(damage)
        await kernel.redirect(15299, "192.0.2.1:15299")
        assert "ip6 daddr fd00:10:244::/64 tcp dport 15299 redirect to :15299" in shown()
    gate.remove()
    gate.remove()
    assert "tidegate" not in shown()


def shown():
    return commands.output("nft", "list", "ruleset").decode()


@inside
@pytest.mark.parametrize("pod", ["10.244.9.11", "fd00:10:244::b"])
async def test_the_holder_learns_which_pods_gate_was_called(kernel, pod):
    asked = []

    async def serve(reader, writer):
        asked.append(holder.original_destination(writer.get_extra_info("socket")))
        writer.close()

    server = await asyncio.start_server(serve, ["127.0.0.1", "::1"], 15300)
    await kernel.redirect(15299, "127.0.0.1:15300")
    reader, writer = await asyncio.open_connection(pod, 15299)
    await reader.read()
    writer.close()
    server.close()
    assert asked == [(pod, 15299)]


LISTENER = """
import socket, subprocess, sys
for line in sys.argv[1:]:
    subprocess.run(["ip", *line.split()], check=True)
listening = socket.create_server(("", 8080))
client = socket.create_connection(("10.244.9.11", 8080))
held = listening.accept()
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def pod_namespace():
    """A pod with one connection to itself in flight, in a namespace of its own."""
    words = ["link set lo up", "address add 10.244.9.11/32 dev lo"]
    command = ["unshare", "--net", sys.executable, "-c", LISTENER, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


@inside
async def test_a_pods_sockets_are_read_in_its_own_network_namespace_and_no_other(kernel):
    own = NamespacedSockets()
    assert "none of this node's network namespaces have 10.244.9.11" in str(await own.read((POD,)))
    with pod_namespace() as pod:
        found = await own.read((POD,))
        assert len(found.live) == 1 and found.live[0].state == "ESTABLISHED", found
        ours = os.readlink("/proc/self/ns/net")
        assert os.readlink(f"/proc/{pod.pid}/ns/net") != ours, "we are in it ourselves"
        with pod_namespace():
            assert "2 of this node's network namespaces have 10.244.9.11" in str(await own.read((POD,)))
    assert not (await own.read((POD,))).is_quiet


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such-tool", "-L"), "no-such-tool -L: No such file"),
        (("sh", "-c", "echo broken >&2; exit 3"), "exit 3: broken"),
        (("sleep", "30"), "sleep 30: no end after 0.2 s"),
        (("yes",), "yes: printed more than 1000 bytes"),
    ],
)
def test_a_command_that_does_not_do_what_it_is_for_says_so_in_one_line(words, said, monkeypatch):
    monkeypatch.setattr(commands, "BYTES_MAX", 1000)
    with pytest.raises(CommandFailed) as failed:
        commands.output(*words, seconds=0.2)
    assert said in str(failed.value) and "\n" not in str(failed.value)


async def test_a_question_during_a_long_reading_is_told_so_and_the_next_one_finds_it_done(monkeypatch):
    """Nobody waits for the end of what takes a minute on a busy node of 10,000 Services."""
    monkeypatch.setattr(kernel_module, "ANSWER_SECONDS", 0.05)
    may_end, readings = threading.Event(), []

    def read(self, endpoints, fences):
        readings.append(endpoints)
        may_end.wait(10)
        return Reading(Facts("node-1", "all"), 1)

    monkeypatch.setattr(LinuxKernel, "_read", read)
    with contextlib.closing(LinuxKernel("node-1", "192.0.2.1", lambda: FENCES)) as kernel:
        told = [await kernel.read((POD,)) for _ in range(3)]
        assert [str(one.facts.unreadable[0]) for one in told] == [f"node-1: {kernel_module.READING}"] * 3
        assert len(readings) == 1, "what is under way is waited for, not begun again"
        may_end.set()
        assert (await kernel.read((POD,))).facts.dump == "all"
