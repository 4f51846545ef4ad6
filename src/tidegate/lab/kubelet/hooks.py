"""Lifecycle hooks, with the real kubelet's failings.

Source: Kubernetes v1.36.2 pkg/kubelet/lifecycle/handlers.go and ``executePreStopHook``; measured on a real
1.36.2: the HTTP status is ignored, only a broken transport fails and failing opens the gate (SIGTERM at once,
event FailedPreStopHook); a hook that outlives the grace period is abandoned without its connection being closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, parse_target
from tidegate.kube.wire import converse
from tidegate.lab.kubelet.prober import ProbeError, Target, port_number
from tidegate.lab.kubelet.seams import HookDialer
from tidegate.lab.runtime.spec import Runtime, StartError

USER_AGENT = "kube-lifecycle/1.36"


class HookFailed(Exception):
    """The hook could not be run, or its command failed."""


class Hooks:
    """Runs hooks of one node. Abandoned ones stay here until they end by themselves."""

    def __init__(self, runtime: Runtime, dial: HookDialer) -> None:
        self._runtime = runtime
        self._dial = dial
        self._abandoned: dict[asyncio.Task[None], None] = {}

    async def run(self, target: Target, hook: Mapping[str, Any]) -> None:
        """Run a hook to its end. Raises ``HookFailed``."""
        if "exec" in hook:
            await self._exec(target, tuple(hook["exec"].get("command") or ()))
        elif "httpGet" in hook:
            await self._http(target, hook["httpGet"])
        elif "sleep" in hook:
            await asyncio.sleep(hook["sleep"].get("seconds", 0))
        else:
            raise HookFailed("invalid handler: the lab knows exec, httpGet and sleep")

    async def run_within(self, target: Target, hook: Mapping[str, Any], seconds: float) -> bool:
        """Run a hook for at most ``seconds``. False = abandoned: it goes on unseen. Raises ``HookFailed``."""
        task = asyncio.get_running_loop().create_task(self.run(target, hook), name=f"hook of {target.spec.pod}")
        try:
            done, _ = await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            self._abandoned[task] = None
            task.add_done_callback(self._ended)
            return False
        error = task.exception()
        if error is not None:
            raise error
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._abandoned[task]
        if not task.cancelled():
            task.exception()  # nobody is left who would hear of it

    def close(self) -> None:
        """The node is gone: abandoned hooks lose their connections."""
        for task in list(self._abandoned):
            task.cancel()

    async def _exec(self, target: Target, command: tuple[str, ...]) -> None:
        try:
            code, output = await self._runtime.run(target.spec, command)
        except StartError as error:
            raise HookFailed(str(error)) from error
        if code != 0:
            raise HookFailed(f"command exited with {code}: {output.decode(errors='replace').strip()}")

    async def _http(self, target: Target, action: Mapping[str, Any]) -> None:
        host = action.get("host") or target.pod_ip
        if not action.get("host") and target.is_host_network:
            raise HookFailed("failed to find networking container")  # k/k#134285, open in 1.36
        writer: asyncio.StreamWriter | None = None
        try:
            port = port_number(target.container, action["port"])
            path, query = parse_target(action.get("path") or "/")
            path = path if path.startswith("/") else f"/{path}"
            # Word for word what a real 1.36.2 sends (Go's transport adds the last), but for our "connection: close".
            headers = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "gzip"}
            headers |= {header["name"].lower(): header["value"] for header in action.get("httpHeaders") or []}
            reader, writer = await self._dial(host, port)
            await converse(reader, writer, Request("GET", path, query, headers), f"{host}:{port}")
        except ProbeError as error:
            raise HookFailed(str(error)) from error
        except (OSError, Unreachable) as error:
            raise HookFailed(f'Get "http://{host}:{action["port"]}": {error}') from error
        finally:
            if writer is not None:
                writer.close()
