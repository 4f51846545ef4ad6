"""The node agent: testifies for its node's kernel, and keeps the drains of its node's leaving pods.

Environment: TIDEGATE_NODE, TIDEGATE_NODE_ADDRESS, TIDEGATE_SERVER (URL; empty: kubeconfig), TIDEGATE_KERNEL_SOCKET
(a lab's kernel; without one the kernel is this machine's own, in our network namespace), TIDEGATE_AGENT_SOCKET (the
holder asks there), TIDEGATE_STATE_DIR, TIDEGATE_KUBELET_PID (without it the process is looked for), TIDEGATE_HOLDER
("ip:port" the gate is redirected to), TIDEGATE_POD_NETWORKS (of this node's pods, by commas; without them those of its
Node object), TIDEGATE_MOVE_UDP (yes, the default, or no: whether UDP flows that stay bound to cut pods are moved),
TIDEGATE_TLS_DIR (our certificate; without it ports are plain HTTP), TIDEGATE_READY_FILE (made once we listen),
TIDEGATE_SEED.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.agent.callers import Callers
from tidegate.agent.drains import PodDrains
from tidegate.agent.gate import LINE_BYTES_MAX, Gate
from tidegate.agent.ground import Ground, LinuxGround, Redirects, in_lab
from tidegate.agent.holds import DIED, DeadHold, Holds
from tidegate.agent.journals import Journals
from tidegate.agent.leader import Leader
from tidegate.agent.moving import IS_OFF, Mover
from tidegate.agent.ports import Doors, Ports, credentials_in
from tidegate.agent.questions import Questions
from tidegate.agent.witness import NodeWitness
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import Api
from tidegate.kube.connect import open_api
from tidegate.model.names import AGENT_PORT, GATE_PORT
from tidegate.observers.asking import AGENT_ASK_PORT, COORDINATOR_NAME
from tidegate.observers.kernel import KernelUnreachable
from tidegate.vtime import Nursery

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidegate.vtime import Program

REDIRECT_SECONDS = 2.0
"""Whoever takes the redirect away opens every gate of the node: it is put back this often."""
LEAVE_SECONDS = 3600.0
OTHERS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Where the agent is and whom it asks."""

    node: str
    address: str
    server: str
    kernel_socket: str
    """Empty: this machine's own kernel."""
    agent_socket: str
    holder: str
    state_dir: str = ""
    kubelet_pid: int = 0
    seed: str = "0"
    pod_networks: tuple[str, ...] = ()
    tls_folder: str = ""
    ready_file: str = ""
    moves_udp: bool = True

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> AgentSettings:
        """Raises ``KeyError`` for what has no default."""
        address = env["TIDEGATE_NODE_ADDRESS"]
        return cls(
            node=env["TIDEGATE_NODE"],
            address=address,
            server=env.get("TIDEGATE_SERVER", ""),
            kernel_socket=env.get("TIDEGATE_KERNEL_SOCKET", ""),
            agent_socket=env["TIDEGATE_AGENT_SOCKET"],
            holder=env.get("TIDEGATE_HOLDER", f"{address}:{GATE_PORT}"),
            state_dir=env.get("TIDEGATE_STATE_DIR", ""),
            kubelet_pid=int(env.get("TIDEGATE_KUBELET_PID") or 0),
            seed=env.get("TIDEGATE_SEED", "0"),
            pod_networks=tuple(filter(None, env.get("TIDEGATE_POD_NETWORKS", "").split(","))),
            tls_folder=env.get("TIDEGATE_TLS_DIR", ""),
            ready_file=env.get("TIDEGATE_READY_FILE", ""),
            moves_udp=env.get("TIDEGATE_MOVE_UDP", "yes") == "yes",  # what is misspelt changes nothing
        )

    def ground(self, api: Api) -> Ground:
        """The kernel to testify for."""
        if self.kernel_socket:
            return in_lab(self.node, self.kernel_socket, self.kubelet_pid)
        return LinuxGround(api, self.node, self.address, self.kubelet_pid, self.pod_networks).ground


async def main(program: Program) -> int:
    """Serve until SIGTERM, then until the last hold is over: an answered hold must not die with its agent."""
    settings = AgentSettings.from_env(program.env)
    with contextlib.closing(Journals(settings.state_dir)) as journals:
        await _serve(program, settings, journals)
    return 0


async def _serve(program: Program, settings: AgentSettings, journals: Journals) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ledger = Ledger(f"{settings.state_dir}/ledger.jsonl" if settings.state_dir else "")
    async with open_api(settings.server, is_lean=True) as api:
        ground = settings.ground(api)
        credentials = credentials_in(settings.tls_folder)
        holds = Holds(journals)
        drains = PodDrains(
            api, settings.node, Leader(api, credentials=credentials), holds, ground.sockets, program.log,
            random.Random(f"{settings.seed}/agent/{settings.node}"), ledger=ledger,
        )  # fmt: skip
        gate = Gate(drains, holds, program.log)
        questions = Questions(NodeWitness(ground.tables, settings.node), ground.sockets, api, settings.address)
        questions.ledger = ledger
        questions.mover = Mover(ground.tables, settings.node, ground.flows, program.log)
        if not settings.moves_udp:
            questions.mover = Mover(ground.tables, settings.node, None, program.log, IS_OFF)
        dead = holds.restore()
        # Listening before anything slow: the holder falls back when it cannot connect. From here on it asks us and not
        # the agent before us, which keeps what it holds.
        listening = await _listen(settings.agent_socket, gate)
        doors = Doors(settings.address, AGENT_PORT, AGENT_ASK_PORT, (COORDINATOR_NAME,), is_shared=True)
        ports = Ports(doors, questions.exchange, Callers(api), program.log, credentials, questions.peers_exchange)
        async with Nursery() as nursery:
            nursery.start(_serve_questions(ports, settings.ready_file), name="ports")
            nursery.start(drains.watch.run(), name="pods")
            if ground.follow is not None:
                nursery.start(ground.follow(), name="fences and networks")
            nursery.start(_keep_redirect(ground.redirects, settings.holder, program.log), name="redirect")
            nursery.start(_record_dead_holds(drains, dead, program.log), name="dead holds")
            nursery.start(_look_after_others(drains, holds, program.log), name="other agents")
            await stop.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gate.idle.wait(), LEAVE_SECONDS)
            nursery.cancel()
        listening.close()
        await ports.leave()
    ground.redirects.close()


async def _serve_questions(ports: Ports, ready_file: str) -> None:
    """Without a certificate there are no questions yet; gates are held all the same."""
    await ports.open()
    if ready_file:
        Path(ready_file).touch()
    await ports.keep()


async def _listen(path: str, gate: Gate) -> asyncio.AbstractServer:
    """The UNIX socket of the holder; one left behind by a killed agent is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return await asyncio.start_unix_server(gate.serve, path, limit=LINE_BYTES_MAX)


async def _record_dead_holds(drains: PodDrains, dead: list[DeadHold], log: Callable[[str], None]) -> None:
    """What an agent held that is gone, it lost: those drains are bypassed, whatever the pods say by now."""
    for hold in dead:
        log(f"{hold.pod.name} {hold.container}: bypassed, its hold died with the agent")
        await drains.died(hold.pod, DIED.reason)
        await drains.record(hold.pod, DIED)


async def _look_after_others(drains: PodDrains, holds: Holds, log: Callable[[str], None]) -> None:
    """An agent that we replace may die while it sees its last holds through."""
    while True:
        await asyncio.sleep(OTHERS_SECONDS)
        if dead := holds.bury():
            await _record_dead_holds(drains, dead, log)


async def _keep_redirect(kernel: Redirects, holder: str, log: Callable[[str], None]) -> None:
    """The kubelet's call to any pod's gate port goes to the holder."""
    failure = ""
    while True:
        try:
            await kernel.redirect(GATE_PORT, holder)
            failure = ""
        except KernelUnreachable as error:
            if failure != str(error):
                failure = str(error)
                log(f"the gate is not redirected: {failure}")
        await asyncio.sleep(REDIRECT_SECONDS if not failure else 0.2)
