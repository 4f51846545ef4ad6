"""Record what kubectl posts as protobuf, beside what it prints for the same command as JSON.

    python tools/record_kubectl_bodies.py .venv/bin/kubectl tests/lab/schema/kubectl_bodies.json

kubectl is the oracle: a decoded body must equal ``--dry-run=client -o json``. The lab's own API server answers, so
that kubectl gets as far as posting; only the bodies are kept.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
from pathlib import Path

from tidegate.kube import wire
from tidegate.kube.exchange import Request, Response
from tidegate.lab.apiserver.server import ApiServer

COMMANDS = """
create namespace n
create deployment web --image=i:1 --replicas=0 --port=80 -- sh -c true
create deployment two --image=a:1 --image=b:2
create configmap c --from-literal=a=b --from-literal=empty=
create secret generic s --from-literal=a=b
create secret docker-registry d --docker-username=u --docker-password=p --docker-server=r.example.org
create service clusterip c1 --tcp=80:8080
create service clusterip headless --clusterip=None --tcp=80
create service nodeport np --tcp=80:http --node-port=30080
create service loadbalancer lb --tcp=80:80
create service externalname ext --external-name=example.org
create serviceaccount sa
create poddisruptionbudget p1 --selector=app=web --min-available=50%
create poddisruptionbudget p2 --selector=app=web --max-unavailable=0
create priorityclass pc --value=1000 --description=x --preemption-policy=Never
create quota q --hard=cpu=1,pods=2 --scopes=BestEffort
create role r --verb=get,list --resource=pods,deployments.apps --resource-name=a
create clusterrole cr --verb=get --non-resource-url=/healthz
create clusterrole agg --aggregation-rule=a=b
create rolebinding rb --role=r --user=u --group=g --serviceaccount=default:sa
create clusterrolebinding crb --clusterrole=cr --user=u
create ingress i --rule=a.example.org/x*=svc:80,tls=cert --class=nginx --annotation=k=v
create ingress j --default-backend=svc:http
create job j --image=i:1 -- sh -c true
create cronjob cj --image=i:1 --schedule=*/5_*_*_*_* -- sh -c true
autoscale deployment web --name=h --min=1 --max=3 --cpu=50%
create token default --audience=a --duration=1h
auth can-i create pods
auth can-i --list
auth whoami
"""


async def run(kubectl: str, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        kubectl, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    return out.decode()


async def record(kubectl: str) -> dict[str, dict[str, object]]:
    server = ApiServer(random.Random(0))
    posted: list[bytes] = []

    async def exchange(request: Request) -> Response:
        if request.method in ("POST", "PUT") and "protobuf" in request.headers.get("content-type", ""):
            posted.append(request.body)
        return await server.exchange(request)

    listener = await wire.serve(exchange, "127.0.0.1", 0)
    base = ["--server", f"http://127.0.0.1:{listener.port}"]
    recorded: dict[str, dict[str, object]] = {}
    for command in COMMANDS.strip().splitlines():
        words = [word.replace("_", " ") for word in command.split()]
        dry = words[:]
        dry[dry.index("--") if "--" in dry else len(dry) :] = ["--dry-run=client", "-o", "json", *(
            dry[dry.index("--") :] if "--" in dry else []
        )]  # fmt: skip
        printed = await run(kubectl, *base, *dry)
        posted.clear()
        await run(kubectl, *base, *words)
        if not posted:
            raise SystemExit(f"kubectl {command}: nothing was posted as protobuf")
        text = printed if printed.startswith("{") else "null"
        recorded[command] = {"body": base64.b64encode(posted[0]).decode(), "json": json.loads(text)}
    await listener.close()
    return recorded


if __name__ == "__main__":
    found = asyncio.run(record(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"{len(found)} commands")
