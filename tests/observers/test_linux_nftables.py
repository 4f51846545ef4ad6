"""What we read of nftables by ourselves, against what nft and iptables print of the same rules in the same kernel."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import time
import weakref

import golden_dumps as dumps
import pytest
import test_random_rules as random_rules
from hypothesis import given, settings
from rulesets import L4PROTO, equal, iptables

from tidegate.dataplane import iptables as iptables_parser
from tidegate.dataplane import nft as nft_parser
from tidegate.dataplane.frontends import Asking
from tidegate.dataplane.nftables import table
from tidegate.model.endpoint import Endpoint
from tidegate.observers.linux import commands, nftables
from tidegate.observers.linux.commands import CommandFailed
from tidegate.observers.linux.following import Followed
from tidegate.observers.linux.generation import Generations

INSIDE = "TIDEGATE_TEST_LINUX_NFTABLES"
APART = ["unshare", "--net", "--map-root-user"]
EXAMPLES = int(os.environ.get("TIDEGATE_EXAMPLES", "300")) // 10
ODD = """
table ip t {
 set a { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 11.0.0.0-11.0.0.7, 192.168.1.5, 255.255.255.0/24 } }
 set b { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90, 1.2.3.4 . 5 } }
 map c { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : accept, * : goto last } }
 chain last { tcp dport 70 dnat to 10.4.0.1 comment "default/web:http"
  tcp dport != 1-69 tcp dport < 90 dnat to 10.4.0.2:1-5
 }
 chain pre { type nat hook prerouting priority 0;
  ip daddr @a ip saddr 1.2.3.0/24 tcp dport 80 counter dnat to 10.1.0.1
  ip daddr . tcp dport @b dnat to 10.1.0.2:99
  tcp sport 5 tcp dport 6 dnat to 10.0.0.1-10.0.0.9:80-90
  ip saddr 1.2.3.4 ip daddr 5.6.7.8 tcp dport { 81, 90-100 } redirect to :99
  ip daddr 10.0.0.0/12 tcp dport != 80 dnat to 10.1.0.3
  ip daddr != 10.0.0.0/16 ip protocol { tcp, udp } th dport 7 dnat to 10.1.0.4
  ip saddr . tcp dport vmap { 1.1.1.1 . 88 : goto last }
  tcp dport 60-65 dnat to ip daddr map { 1.1.1.1 : 2.2.2.2, 2.2.2.2 : 3.3.3.3 }
  ip dscp set cs1
  ip daddr vmap @c
 }
}
table inet u {
 chain pre { type nat hook prerouting priority 0;
 ip daddr 1.2.3.4 tcp dport 80 dnat ip to 10.0.0.1
 ip6 daddr fd00::/112 tcp dport 80 dnat ip6 to [fd00::1]:80
 ip6 daddr != { fd00::1, fd00::5 } udp dport 53 dnat ip6 to [fd00::2]:53
 tcp dport vmap { 1-5 : accept, 7 : drop }
 ip daddr { 10.0.0.0/8, 172.16.0.0-172.16.0.5 } tcp dport 9 redirect
 }
}
table ip f {
 chain out { type filter hook output priority 0;
  ip daddr set 10.3.3.3
 }
}
"""

pytestmark = pytest.mark.realtime
inside = pytest.mark.skipif(not os.environ.get(INSIDE), reason="played in a network namespace of its own")


@pytest.mark.skipif(bool(os.environ.get(INSIDE)), reason="we are inside it already")
def test_what_is_read_by_ourselves_is_what_the_tools_print_in_a_network_namespace_of_their_own():
    if absent := [tool for tool in ("unshare", "nft", "iptables-nft-restore") if not shutil.which(tool)]:
        pytest.skip(f"no {', '.join(absent)} (Debian: util-linux, nftables, iptables)")
    if subprocess.run([*APART, "nft", "list", "ruleset"], capture_output=True).returncode:
        pytest.skip("this machine lets us make no network namespace with rules of its own")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    ran = subprocess.run(
        [*APART, *command], env={**os.environ, INSIDE: "1"}, capture_output=True, text=True, timeout=150
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 skipped" in ran.stdout, ran.stdout


@pytest.fixture(scope="module", params=[1, 1000])
def followed(request):
    """One for all tests: what a test left has to be unlearned by the next. Each chain is long enough for it here that
    its rules are known again when they are read; or none is, and they are when they are heard of."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(table, "LONG_MIN", request.param)
        made = Followed(Generations())
        yield made
        made.close()


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    if os.environ.get(INSIDE):
        commands.output("nft", "flush", "ruleset")


def told(facts):
    """Everything that a reading says, in one order. Only whose rules it says not."""
    routes = sorted((str(route), sorted(map(str, route.endpoints))) for route in facts.routes)
    return routes, sorted(map(str, facts.fence)), sorted(one.where for one in facts.unreadable)


def printed():
    return commands.output("nft", "-j", "list", "ruleset")


def read(followed, asking=Asking()):
    return followed.facts(asking)[0]


def same(followed):
    """That both see the same, of everything and of each endpoint."""
    known = nft_parser.parse(printed())
    assert told(read(followed)) == told(known)
    for endpoint in dict.fromkeys(to for route in known.routes for to in route.endpoints if to.port):
        asking = Asking(endpoints=(endpoint,))
        assert told(read(followed, asking)) == told(nft_parser.parse(printed(), asking=asking))
    return known


@inside
@pytest.mark.parametrize("name", [name for name in dumps.names("nft-json") if "iptables" not in name])
def test_a_real_kube_proxys_rules_are_read_as_nft_prints_them(followed, name):
    objects = [one for one in json.loads(dumps.text(name))["nftables"] if "metainfo" not in one]
    order = ("table", "chain", "set", "map", "element", "rule")
    objects.sort(key=lambda one: min(order.index(kind) for kind in one))  # elements lead to chains
    commands.output("nft", "-j", "-f", "-", text=json.dumps({"nftables": objects}))
    assert same(followed).routes or "no-endpoints" in name


@inside
def test_rules_nobody_writes_for_services_are_read_as_nft_prints_them(followed):
    commands.output("nft", "-f", "-", text=ODD)
    assert len(same(followed).routes) > 15
    assert told(read(followed))[2] == ["table ip f, chain out, handle 2"]


@inside
@pytest.mark.parametrize("name", dumps.names("iptables-save"))
def test_a_real_kube_proxys_iptables_rules_are_read_as_iptables_save_prints_them(followed, name):
    nat = "*nat" + dumps.text(name).partition("*nat")[2].partition("COMMIT")[0] + "COMMIT\n"
    nat = "\n".join(line for line in nat.split("\n") if "-m nfacct" not in line)  # their counters are not here
    tool = "ip6tables-nft" if "ip6tables" in name else "iptables-nft"
    commands.output(f"{tool}-restore", text=nat)
    same_as_iptables(followed, tool)


def same_as_iptables(followed, tool):
    known = iptables_parser.parse(commands.output(f"{tool}-save").decode())
    assert known.unreadable == ()
    assert told(read(followed)) == told(known)
    for endpoint in dict.fromkeys(to for route in known.routes for to in route.endpoints if to.port):
        asking = Asking(endpoints=(endpoint,))
        assert [route.endpoints for route in read(followed, asking).routes_to(endpoint)] == [(endpoint,)] * len(
            known.routes_to(endpoint)
        )


OWNED = """table ip o { flags owner; chain end { dnat to 10.6.0.1; }; chain far { tcp dport 80 dnat to 10.6.0.2; }; \
chain pre { type nat hook prerouting priority 0; ip daddr 1.2.3.4 tcp dport 80 goto end; tcp dport 81 goto far; }; }
"""


@inside
def test_a_table_that_goes_with_its_owner_goes_without_a_word_and_is_not_waited_for(followed):
    """The kernel takes it away when its owner's socket closes: no commit, no message, the generation stays."""
    owner = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        owner.stdin.write(OWNED)
        owner.stdin.flush()
        until = time.monotonic() + 5
        while "10.6.0.1" not in printed().decode() and time.monotonic() < until:
            time.sleep(0.02)  # realtime: nft's own process makes it
        asking = Asking((Endpoint("10.6.0.1"),))
        assert read(followed, asking).routes_to(Endpoint("10.6.0.1"))
    finally:
        owner.kill()
        owner.wait()
    while "10.6.0.1" in printed().decode():
        time.sleep(0.02)  # realtime: the kernel notices when that process is gone
    for address in ("10.6.0.1", "10.6.0.2"):
        facts = read(followed, Asking((Endpoint(address),)))
        assert not facts.routes and not facts.unreadable
    same(followed)


RENAMED = """table ip r { chain a { ip saddr 9.9.9.9 return; }; chain b { tcp dport 81 dnat to 10.7.0.9; };
 chain pre { type nat hook prerouting priority 0; ip daddr 1.2.3.4 jump a; jump b; }; }
"""


@inside
def test_a_chain_that_is_renamed_leads_where_it_led_and_where_it_leads_since(followed):
    """The kernel tells its new name, and nothing of the rules that jump to it: they name it by that from now on."""
    commands.output("nft", "-f", "-", text=RENAMED)
    same(followed)
    commands.output("nft", "-f", "-", text="rename chain ip r a c\n")
    commands.output("nft", "-f", "-", text="rename chain ip r b a\n")
    same(followed)
    commands.output("nft", "-f", "-", text="add rule ip r c tcp dport 80 dnat to 10.7.0.1\n")
    assert read(followed, Asking((Endpoint("10.7.0.1"),))).routes
    same(followed)


@inside
@pytest.mark.parametrize("is_heard_between", [False, True])
def test_what_the_kernel_could_not_tell_us_is_read_anew_and_never_passed_over(monkeypatch, is_heard_between):
    """More commits than the socket holds (ENOBUFS): the last of them, which nobody told us of, is in the answer."""
    monkeypatch.setattr(nftables, "BACKLOG_BYTES", 1)
    lost = []
    heard = nftables.Commits.heard

    def hearing(self):
        try:
            yield from heard(self)
        except OSError as error:
            lost.append(error.errno)
            raise

    monkeypatch.setattr(nftables.Commits, "heard", hearing)
    with contextlib.closing(Followed(Generations())) as deaf:
        commands.output("nft", "-f", "-", text=RENAMED)
        same(deaf)
        assert not read(deaf, Asking((Endpoint("10.7.0.77"),))).routes
        for number in range(5):
            commands.output("nft", "-f", "-", text=f"add rule ip r a tcp dport 80 dnat to 10.7.0.{number + 10}\n")
        burst = "".join(f"add rule ip r a tcp dport {port} dnat to 10.7.0.77\n" for port in range(1000, 1100))
        commands.output("nft", "-f", "-", text=burst)
        if is_heard_between:
            deaf.hear()
        assert read(deaf, Asking((Endpoint("10.7.0.77"),))).routes
        assert errno.ENOBUFS in lost
        assert told(read(deaf)) == told(nft_parser.parse(printed()))


@inside
def test_rules_that_are_read_anew_do_not_stay_in_memory_beside_those_of_before():
    """What was read is put out of the collector's sight (``gc.freeze``): not for good."""
    commands.output("nft", "-f", "-", text=RENAMED)
    with contextlib.closing(Followed(Generations())) as again:
        same(again)
        before = weakref.ref(next(iter(again._mirror._tables.values())))
        again.close()
        same(again)
        assert before() is None


def commit(objects):
    commands.output("nft", "-j", "-f", "-", text=json.dumps({"nftables": objects}))


def rewrite(chains, some):
    """Make table t hold ``chains``, which were there before with other rules. Not every random rule is a kernel's."""
    own = {"family": "ip", "table": "t"}
    objects = [{"add": {"table": {"family": "ip", "name": "t"}}}]
    objects.append({"add": {"set": {**own, "name": "some", "type": "ipv4_addr"}}})
    objects.append({"flush": {"set": {**own, "name": "some"}}})
    objects.append({"add": {"element": {**own, "name": "some", "elem": some}}})
    for name in chains:
        hook = {"type": "nat", "hook": name.lower(), "prio": -100} if name in ("PREROUTING", "OUTPUT") else {}
        objects += [{"add": {"chain": {**own, "name": name, **hook}}}, {"flush": {"chain": {**own, "name": name}}}]
    commit(objects)
    for name, rules in chains.items():
        for rule in rules:
            with contextlib.suppress(CommandFailed):
                expressions = rule if equal(L4PROTO, "udp") in rule else [equal(L4PROTO, "tcp"), *rule]
                commit([{"add": {"rule": {**own, "chain": name, "expr": expressions}}}])


@inside
@settings(max_examples=EXAMPLES, deadline=None)
@given(random_rules.of_chains(random_rules.nft_rule))
def test_random_rules_followed_from_commit_to_commit_are_read_as_nft_prints_them(followed, chains):
    some = random_rules.ADDRESSES[: 1 + len(chains["OUTPUT"]) % 3]
    rewrite(chains, some)
    known = nft_parser.parse(printed())
    assert told(read(followed)) == told(known)
    for endpoint in (Endpoint(*end) for end in random_rules.ENDPOINTS):
        asking = Asking(endpoints=(endpoint,))
        ours, theirs = (told(one) for one in (read(followed, asking), nft_parser.parse(printed(), asking=asking)))
        assert ours[1:] == theirs[1:] and bool(ours[0]) == bool(theirs[0])
        assert all(route in ours[0] for route in theirs[0]), "what led there before may be told in more detail"


@inside
@settings(max_examples=EXAMPLES, deadline=None)
@given(random_rules.of_chains(random_rules.iptables_rule))
def test_random_rules_of_iptables_are_read_as_iptables_save_prints_them(followed, chains):
    for rules in chains.values():
        rules[:] = [rule if "-p " in rule or ":8080" not in rule else f"-p tcp {rule}" for rule in rules]
    commands.output("iptables-nft-restore", text=iptables(chains))
    known = iptables_parser.parse(commands.output("iptables-nft-save").decode())
    assert told(read(followed)) == told(known)
