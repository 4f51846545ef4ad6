"""Story 4 with processes, sockets and the wall clock: a pod is cut and given back while requests come in."""

from __future__ import annotations

import http.client
import threading
import time

import pytest

pytestmark = pytest.mark.realtime


class Requests(threading.Thread):
    """One request after the other through a Service's address, each accounted for."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address, self.sent, self.lost, self.is_over = address, 0, [], False

    def run(self) -> None:
        while not self.is_over:
            self.sent += 1
            connection = http.client.HTTPConnection(self.address, 80, timeout=5)
            try:
                connection.request("GET", "/sleep?ms=20")
                if connection.getresponse().status != 200:
                    self.lost.append("not 200")
            except OSError as error:
                self.lost.append(repr(error))
            finally:
                connection.close()
            time.sleep(0.01)  # realtime: clients of this machine


def test_a_pod_is_cut_and_given_back_under_load_and_its_replacement_goes(user):
    user.run("lab", "up", "--detach", "--nodes", "2").expect(0)
    user.environment["KUBECONFIG"] = str(user.state / "labs" / "default" / "kubeconfig")
    user.kubectl("create", "deployment", "test", "--image=tidegate/echo:v1", "--replicas=2").expect(0)
    user.kubectl("expose", "deployment", "test", "--port=80", "--target-port=8080", "--type=NodePort").expect(0)
    user.kubectl("rollout", "status", "deployment", "test", "--timeout=15s").expect(0)
    before = user.kubectl("get", "pods", "-l", "app=test", "-o", "name").expect(0).stdout.split()
    address = user.kubectl("get", "svc", "test", "-o", "jsonpath={.spec.clusterIP}").expect(0).stdout
    time.sleep(1)  # realtime: its proxies
    clients = [Requests(address) for _ in range(4)]
    for client in clients:
        client.start()
    user.run("cut", before[0], "--yes").expect(0)
    user.kubectl("rollout", "status", "deployment", "test", "--timeout=15s").expect(0)
    done = user.run("restore", before[0], "--yes").expect(0)
    assert "went in its place" in done.stdout
    for client in clients:
        client.is_over = True
        client.join(10)
    assert sum(client.sent for client in clients) > 200
    assert [lost for client in clients for lost in client.lost] == []
    assert sorted(user.kubectl("get", "pods", "-o", "name").expect(0).stdout.split()) == sorted(before)
