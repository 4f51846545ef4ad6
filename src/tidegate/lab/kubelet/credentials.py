"""Who a pod's processes are to the API: the token of its service account, and a kubeconfig that names it.

A real kubelet mounts them at /var/run/secrets/kubernetes.io/serviceaccount. The lab mounts nothing: its pods find the
kubeconfig by KUBECONFIG. client-go sends no token over plain HTTP, but whom to act as: that is in it, too. Nor does it
mount an emptyDir: POD_FOLDER is a folder of the pod's own, gone when the pod is.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tidegate.kube.api import SERVICEACCOUNTS, Api
from tidegate.kube.errors import ApiError

TOKEN_SECONDS = 365 * 24 * 3600
"""What kube-apiserver makes of the 3607 s that pods ask for (--service-account-extend-token-expiration), so that none
has to be rotated."""

_ACCOUNT_SECONDS = 2.0
"""How long a pod waits for its account: a new namespace gets its own within milliseconds."""


class Credentials:
    """The files of one node's pods, in ``folder``, for the API at ``server``; ``authority`` (PEM) signed its
    certificate, "" without TLS."""

    def __init__(self, api: Api, folder: Path, server: str, authority: str = "") -> None:
        self._api = api
        self._folder = folder
        self._cluster = {"server": server}
        if authority:
            self._cluster["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
        self._written: dict[str, dict[str, str]] = {}

    async def of(self, pod: Mapping[str, Any]) -> dict[str, str]:
        """What a pod's environment has of them; nothing where the pod wants none, or its account is not there."""
        metadata, spec = pod["metadata"], pod["spec"]
        uid = str(metadata["uid"])
        if spec.get("automountServiceAccountToken") is False:
            return {}
        if uid not in self._written:
            token = await self._token(pod)
            if not token:
                return {}
            account = spec.get("serviceAccountName") or "default"
            self._written[uid] = self._write(uid, token, metadata["namespace"], account)
        return self._written[uid]

    def forget(self, uid: str) -> None:
        """Its pod has ended."""
        if self._written.pop(uid, None) is not None:
            shutil.rmtree(self._folder / uid, ignore_errors=True)

    async def _token(self, pod: Mapping[str, Any]) -> str:
        metadata = pod["metadata"]
        ref = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": pod["spec"].get("serviceAccountName") or "default"},
            "spec": {"expirationSeconds": TOKEN_SECONDS, "boundObjectRef": ref},
        }
        until = asyncio.get_running_loop().time() + _ACCOUNT_SECONDS
        while True:
            try:
                answer = await self._api.create(SERVICEACCOUNTS, request, metadata["namespace"], "token")
                return str(answer["status"]["token"])
            except ApiError:
                if asyncio.get_running_loop().time() >= until:
                    return ""
                await asyncio.sleep(0.01)

    def _write(self, uid: str, token: str, namespace: str, account: str) -> dict[str, str]:
        folder = self._folder / uid
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        named = {"name": "lab"}
        context = {"cluster": "lab", "user": "lab", "namespace": namespace}
        user = {"tokenFile": "token"}
        if self._cluster["server"].startswith("http://"):
            user["as"] = f"system:serviceaccount:{namespace}:{account}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{**named, "cluster": self._cluster}],
            "contexts": [{**named, "context": context}],
            "users": [{**named, "user": user}],
        }
        (folder / "token").write_text(token)
        (folder / "kubeconfig").write_text(yaml.safe_dump(config, sort_keys=False))
        return {"KUBECONFIG": str(folder / "kubeconfig"), "POD_FOLDER": str(folder)}
