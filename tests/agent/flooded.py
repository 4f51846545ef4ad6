"""A process of its own with an agent's two ports, on a node whose kernel has nothing to tell; for ``test_flood``."""

from __future__ import annotations

import asyncio
import sys

from tidegate.agent.callers import Callers
from tidegate.agent.ports import Doors, Ports
from tidegate.agent.questions import Questions
from tidegate.agent.witness import NodeWitness
from tidegate.dataplane.facts import Facts
from tidegate.dataplane.sockets import Quiet
from tidegate.kube.errors import ApiError
from tidegate.kube.tls import Credentials
from tidegate.observers.asking import AUDIENCE, COORDINATOR_NAME, TOKENREVIEWS
from tidegate.observers.kernel import Reading

NODE = "node-1"


class NothingRouted:
    async def read(self, endpoints):
        return Reading(Facts(NODE, "dump", 0.0), 1)

    async def read_after(self, generation, seconds, endpoints):
        await asyncio.sleep(seconds)
        return await self.read(endpoints)


class Silent:
    async def read(self, endpoints):
        return Quiet()


class Api:
    """Takes 5 ms for whatever it is asked; "good" is the only token it knows."""

    async def create(self, resource, obj, namespace="", subresource=""):
        await asyncio.sleep(0.005)
        spec = obj["spec"]
        if resource is not TOKENREVIEWS:
            return {"status": {"allowed": True}}
        known = {"authenticated": True, "user": {"username": "ann"}, "audiences": [AUDIENCE]}
        return {"status": known if spec["token"] == "good" else {"user": {}}}

    async def get(self, resource, name, namespace=""):
        print(f"api asked for {namespace}/{name}", flush=True)
        raise ApiError(404, "NotFound", "not found")


async def main(folder):
    questions = Questions(NodeWitness(NothingRouted(), NODE), Silent(), Api(), "127.0.0.1")
    ports = Ports(
        Doors("127.0.0.1", 0, 0, (COORDINATOR_NAME,)), questions.exchange, Callers(Api()),
        lambda line: print(line, flush=True), Credentials(folder),
    )  # fmt: skip
    await ports.open()
    print("ports", *(server.port for server in ports._servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
