"""``prepare --in-place`` by the installed command, on a lab of real processes, under load."""

from __future__ import annotations

import http.client
import json
import threading

import pytest
from e2e_world import eventually

pytestmark = pytest.mark.realtime

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: echoapp}
spec:
  replicas: 2
  selector: {matchLabels: {app: echoapp}}
  template:
    metadata: {labels: {app: echoapp}}
    spec:
      containers:
      - name: echo
        image: tidegate/echo:v1
        env: [{name: PORT, value: "8080"}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: echo-service}
spec:
  selector: {app: echoapp}
  ports: [{port: 8080}]
"""


class Load(threading.Thread):
    """One request after the other through the Service, from a node's address."""

    def __init__(self, address, source):
        super().__init__(daemon=True)
        self.address, self.source, self.answers, self.is_over = address, source, [], threading.Event()

    def run(self):
        while not self.is_over.wait(0.01):
            connection = http.client.HTTPConnection(self.address, 8080, 5, source_address=(self.source, 0))
            try:
                connection.request("GET", "/")
                self.answers.append(connection.getresponse().status)
            except OSError as error:
                self.answers.append(repr(error))
            finally:
                connection.close()


def test_no_pod_is_restarted_and_no_request_is_lost(resident, tmp_path):
    manifest = tmp_path / "echo.yaml"
    manifest.write_text(MANIFEST)

    def read(*words):
        return json.loads(resident.kubectl("get", *words, "-o", "json").expect(0).stdout)

    def uids():
        return {one["metadata"]["uid"] for one in read("pods")["items"]}

    resident.kubectl("apply", "-f", str(manifest)).expect(0)
    resident.kubectl("rollout", "status", "deploy/echoapp", "--timeout=15s").expect(0)
    before, address = uids(), read("svc/echo-service")["spec"]["clusterIP"]
    source = read("nodes")["items"][0]["status"]["addresses"][0]["address"]
    load = Load(address, source)
    load.start()
    eventually(lambda: 200 in load.answers)
    load.answers.clear()
    words = ("prepare", "deploy/echoapp", "--service", "echo-service", "--in-place", "--yes", "-o", "json")
    answer = json.loads(resident.run(*words).expect(0).stdout)
    load.is_over.set()
    load.join(6)
    assert answer["result"] == "prepared"
    assert uids() == before
    assert read("svc/echo-service")["spec"]["selector"]["traffic.tidegate.dev/echo-service"] == "on"
    assert len(load.answers) > 50 and set(load.answers) == {200}
    assert len(read("rs")["items"]) == 1
