"""Kubeconfig files, as kubectl reads them: where the API server is and who we are there."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tidegate.kube.errors import KubeError

_EXEC_SECONDS = 60
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(KubeError):
    """A kubeconfig that cannot be used; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One API server and one user of it. Secrets are kept out of ``repr``."""

    server: str
    context: str = ""
    namespace: str = "default"
    ca: bytes = field(default=b"", repr=False)
    insecure: bool = False
    token: str = field(default="", repr=False)
    token_file: str = ""
    client_cert: bytes = field(default=b"", repr=False)
    client_key: bytes = field(default=b"", repr=False)
    basic: str = field(default="", repr=False)
    tls_server_name: str = ""
    proxy: str = ""
    impersonate: str = ""
    """The user to act as (``as`` of the kubeconfig's user)."""
    plugin: tuple[str, str] | None = None
    """(path, context) to load again where a credential plugin gave the token: those live for minutes."""

    def headers(self) -> dict[str, str]:
        """Authentication headers. A token file is read each time: the kubelet rotates it."""
        found = {"impersonate-user": self.impersonate} if self.impersonate else {}
        token = self.token
        if self.token_file:
            try:
                token = Path(self.token_file).read_text("utf-8").strip()
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise ConfigError(f'the token file of context "{self.context}": {why}: {self.token_file}') from error
        if token:
            return {**found, "authorization": f"Bearer {token}"}
        return {**found, "authorization": f"Basic {self.basic}"} if self.basic else found

    def tls(self) -> ssl.SSLContext | bool:
        """What aiohttp takes for ``ssl=``. Raises ``ConfigError``."""
        if not self.server.startswith("https"):
            return True
        try:
            context = ssl.create_default_context(cadata=self.ca.decode("ascii") if self.ca else None)
        except (ssl.SSLError, UnicodeDecodeError) as error:
            raise ConfigError(f'the certificate authority of context "{self.context}" is no PEM certificate') from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            with tempfile.TemporaryDirectory() as folder:  # ssl takes files only
                path = Path(folder) / "client.pem"
                path.touch(0o600)
                path.write_bytes(self.client_cert + b"\n" + self.client_key)
                try:
                    context.load_cert_chain(path, password="")  # an encrypted key must not ask on the terminal
                except ssl.SSLError as error:
                    raise ConfigError(f'the client certificate or key of context "{self.context}" is no PEM') from error
        return context


def load(path: str = "", context: str = "") -> Cluster:
    """The cluster kubectl would use: ``path``, else $KUBECONFIG (a list), else ~/.kube/config, else in-cluster.

    Raises ``ConfigError`` naming the file and the missing piece.
    """
    names = [path] if path else [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    if not names:
        default = Path.home() / ".kube" / "config"
        if not default.exists() and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return in_cluster()
        names = [str(default)]
    documents = [_read(name) for name in names if path or len(names) == 1 or Path(name).exists()]
    chosen = context or next((str(d["current-context"]) for _, d in documents if d.get("current-context")), "")
    if not chosen:
        raise ConfigError(f"{', '.join(names)}: no current-context; name one with --context")
    entry, origin = _named(documents, "contexts", "context", chosen)
    cluster, cluster_file = _named(documents, "clusters", "cluster", str(entry.get("cluster") or ""))
    user, user_file = _named(documents, "users", "user", str(entry["user"])) if entry.get("user") else ({}, origin)
    found = _cluster(chosen, entry, (cluster, cluster_file), (user, user_file))
    return replace(found, plugin=(path, chosen)) if user.get("exec") else found


def in_cluster() -> Cluster:
    """The cluster this pod runs in, by its service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return Cluster(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        context="in-cluster",
        namespace=(_SERVICE_ACCOUNT / "namespace").read_text("utf-8").strip(),
        ca=(_SERVICE_ACCOUNT / "ca.crt").read_bytes(),
        token_file=str(_SERVICE_ACCOUNT / "token"),
    )


Document = tuple[Path, dict[str, Any]]


def _read(name: str) -> Document:
    import yaml  # late: an agent has no such file, and it takes 1 MiB

    file = Path(name).expanduser()
    try:
        loaded = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{name}: no such kubeconfig; set --kubeconfig or KUBECONFIG (a lab's: `tidegate lab kubeconfig --path`)"
        ) from error
    except OSError as error:
        raise ConfigError(f"{name}: not a kubeconfig: {(error.strerror or str(error)).lower()}") from error
    except yaml.MarkedYAMLError as error:
        where = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{where}: not a kubeconfig: malformed YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not a kubeconfig: not a text in UTF-8") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{name}: not a kubeconfig: a mapping is wanted at the top")
    for key in ("clusters", "contexts", "users"):
        entries = loaded.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ConfigError(f"{name}: not a kubeconfig: {key} is no list of mappings")
    return file, loaded


def _named(documents: list[Document], plural: str, singular: str, name: str) -> tuple[dict[str, Any], Path]:
    for file, document in documents:
        for entry in document.get(plural) or []:
            if entry.get("name") == name:
                found = entry.get(singular) or {}
                if not isinstance(found, dict):
                    raise ConfigError(f'{file}: {singular} "{name}" is no mapping')
                return found, file
    files = ", ".join(str(file) for file, _ in documents)
    raise ConfigError(f'{files}: there is no {singular} "{name}"')


def _cluster(
    context: str, entry: dict[str, Any], cluster: tuple[dict[str, Any], Path], user: tuple[dict[str, Any], Path]
) -> Cluster:
    facts, origin = cluster
    who, user_origin = user
    server = str(facts.get("server") or "")
    if not server:
        raise ConfigError(f'{origin}: the cluster of context "{context}" has no server')
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f'{origin}: the server of context "{context}" is no http(s) address: {server}')
    for key in ("as-groups", "as-user-extra", "auth-provider"):
        if who.get(key):  # acting with other rights than asked for would be worse
            raise ConfigError(f'{user_origin}: the user of context "{context}" has {key}, which is not supported')
    if who.get("exec"):
        who = {**who, **_run_plugin(who["exec"], user_origin)}
    basic = ""
    if who.get("username"):
        basic = base64.b64encode(f"{who['username']}:{who.get('password', '')}".encode()).decode()
    return Cluster(
        server=server,
        context=context,
        namespace=str(entry.get("namespace") or "default"),
        ca=_bytes(facts, "certificate-authority", origin),
        insecure=bool(facts.get("insecure-skip-tls-verify")),
        token=str(who.get("token") or ""),
        token_file=str(user_origin.parent / who["tokenFile"]) if who.get("tokenFile") else "",
        client_cert=_bytes(who, "client-certificate", user_origin),
        client_key=_bytes(who, "client-key", user_origin),
        basic=basic,
        tls_server_name=str(facts.get("tls-server-name") or ""),
        proxy=str(facts.get("proxy-url") or ""),
        impersonate=str(who.get("as") or ""),
    )


def _bytes(facts: dict[str, Any], key: str, origin: Path) -> bytes:
    """Inline ``KEY-data`` (base64), or the file ``KEY`` relative to the kubeconfig."""
    if facts.get(f"{key}-data"):
        try:
            return base64.b64decode("".join(str(facts[f"{key}-data"]).split()), validate=True)
        except ValueError as error:
            raise ConfigError(f"{origin}: {key}-data is not base64") from error
    if not facts.get(key):
        return b""
    try:
        return (origin.parent / str(facts[key])).read_bytes()
    except OSError as error:
        raise ConfigError(f"{origin}: {key}: {error.strerror}: {facts[key]}") from error


def _run_plugin(plugin: dict[str, Any], origin: Path) -> dict[str, Any]:
    """An exec credential plugin (client.authentication.k8s.io): its token or client certificate."""
    env = {**os.environ, **{item["name"]: item["value"] for item in plugin.get("env") or []}}
    version = plugin.get("apiVersion") or "client.authentication.k8s.io/v1"
    env["KUBERNETES_EXEC_INFO"] = json.dumps(
        {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    )
    program = str(plugin.get("command") or "")
    if os.sep in program:  # relative to the kubeconfig; a bare name is looked up in PATH
        program = str(origin.parent / program)
    command = [program, *(plugin.get("args") or [])]
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=_EXEC_SECONDS, check=True, text=True)
        status = json.loads(done.stdout)["status"]
        assert isinstance(status, dict)
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        why = f"it ended with exit code {error.returncode}: {said}"
        raise ConfigError(f"{origin}: credential plugin {program}: {why}") from error
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        hint = str(plugin.get("installHint") or "").strip()
        raise ConfigError(f"{origin}: credential plugin {program}: {why}{f'. {hint}' if hint else ''}") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{origin}: credential plugin {program}: no answer in {_EXEC_SECONDS} s") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ConfigError(f"{origin}: credential plugin {program}: it did not print an ExecCredential") from error
    credentials = {"token": status.get("token") or ""}
    for key, name in (("client-certificate", "clientCertificateData"), ("client-key", "clientKeyData")):
        if status.get(name):
            credentials[f"{key}-data"] = base64.b64encode(status[name].encode()).decode()
    return credentials
