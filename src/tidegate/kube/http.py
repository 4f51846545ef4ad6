"""The road to a real API server: aiohttp, TLS, tokens. The only file that imports aiohttp."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import AsyncIterator

import aiohttp
from yarl import URL

from tidegate.kube.errors import ApiError, Unreachable
from tidegate.kube.exchange import Request, Response
from tidegate.kube.kubeconfig import Cluster, load

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 330.0
"""Silence after which a stream is given up: above the 290 s a watch asks for."""
_MESSAGE_BYTES_MAX = 1024 * 1024


class HttpTransport:
    """An ``Exchange`` with one API server. ``await close()`` when done."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | bool = True

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
            connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=60)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=True)
            self._tls = self._cluster.tls()
        return self._session

    async def __call__(self, request: Request) -> Response:
        response = await self._ask(request)
        if response.status != 401 or self._cluster.plugin is None:
            return response
        await response.close()  # the plugin's token has run out: ask it for another, once
        self._cluster = await asyncio.to_thread(load, *self._cluster.plugin)
        self._tls = self._cluster.tls()
        return await self._ask(request)

    async def _ask(self, request: Request) -> Response:
        session = self._open()
        headers = {**self._cluster.headers(), **request.headers}
        url = URL(self._cluster.server.rstrip("/") + request.target, encoded=True)
        try:
            answer = await session.request(
                request.method, url, data=request.body or None, headers=headers,
                ssl=self._tls, server_hostname=self._cluster.tls_server_name or None, proxy=self._cluster.proxy or None,
            )  # fmt: skip
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{self._cluster.server}: {_plain(error)}") from error
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status, headers, self._chunks(answer))

    async def _chunks(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{self._cluster.server}: {_plain(error)}") from error
        finally:
            answer.close() if not answer.content.at_eof() else answer.release()

    async def messages(self, request: Request, protocols: tuple[str, ...]) -> AsyncIterator[bytes]:
        """What the server of a WebSocket sends, until it closes. Raises ``ApiError`` and ``Unreachable``."""
        session = self._open()
        url = URL(self._cluster.server.rstrip("/") + request.target, encoded=True)
        headers = {**self._cluster.headers(), **request.headers}
        try:
            async with session.ws_connect(
                url, protocols=protocols, headers=headers, max_msg_size=_MESSAGE_BYTES_MAX,
                ssl=self._tls, server_hostname=self._cluster.tls_server_name or None, proxy=self._cluster.proxy or None,
            ) as socket:  # fmt: skip
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        yield message.data
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status, "", f"{request.path} was answered {error.status}: {error.message}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{self._cluster.server}: {_plain(error)}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _plain(error: BaseException) -> str:
    """One line a person can act on."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        why = getattr(cause, "verify_message", "") or str(cause)
        return f"its certificate is not trusted: {why}; does the kubeconfig name the right certificate-authority?"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"no TLS: {error.os_error.reason or error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        plain = (
            os.strerror(cause.errno) if cause.errno and cause.errno in errno.errorcode else cause.strerror or str(cause)
        )
        return f"cannot connect: {plain.lower()}"
    return str(error) or type(error).__name__
