"""SPDY/3.1 frames, as much as ``kubectl port-forward`` speaks inside its WebSocket.

moby/spdystream, which is the other end, ignores flow control windows; so does this. Header blocks share one zlib
stream per direction, primed with the dictionary of the SPDY/3 draft.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

_WORDS = """
    options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
    authorization cache-control connection content-base content-encoding content-language content-length
    content-location content-md5 content-range content-type date etag expect expires from host if-match
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade
    user-agent vary via warning www-authenticate method get status
"""
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug "
    "Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8"
    "charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [*_WORDS.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
    return b"".join(struct.pack(">I", len(word)) + word.encode() for word in words) + _TAIL.encode()


DICTIONARY = _dictionary()
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. ``kind`` 0 is data; ``stream`` 0 where a frame has none."""

    kind: int
    stream: int = 0
    flags: int = 0
    payload: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        return bool(self.flags & FIN)


class Framing:
    """Bytes in, frames out, and back; one per connection."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises zlib.error or struct.error on what is no SPDY."""
        self._pending += data
        while len(self._pending) >= 8:
            first, second = struct.unpack_from(">II", self._pending)
            length = second & 0xFFFFFF
            if len(self._pending) < 8 + length:
                return
            payload = bytes(self._pending[8 : 8 + length])
            del self._pending[: 8 + length]
            flags = second >> 24
            if not first >> 31:
                yield Frame(0, first, flags, payload)
            else:
                yield self._control(first & 0xFFFF, flags, payload)

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame:
        if kind == SYN_STREAM:
            stream = struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF
            return Frame(kind, stream, flags, headers=self._headers(payload[10:]))
        if kind == RST_STREAM:
            return Frame(kind, struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF, flags, payload)
        return Frame(kind, 0, flags, payload)

    def _headers(self, block: bytes) -> dict[str, str]:
        raw = self._inflate.decompress(block)
        texts: list[str] = []
        (count,) = struct.unpack_from(">I", raw)
        position = 4
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", raw, position)
            texts.append(raw[position + 4 : position + 4 + length].decode())
            position += 4 + length
        return dict(zip(texts[::2], texts[1::2], strict=True))

    def reply(self, stream: int) -> bytes:
        """A SYN_REPLY without headers: the stream is accepted."""
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _head(SYN_REPLY, 0, 4 + len(block)) + struct.pack(">I", stream) + block

    def pong(self, payload: bytes) -> bytes:
        return _head(PING, 0, len(payload)) + payload

    def data(self, stream: int, payload: bytes, *, last: bool = False) -> bytes:
        return struct.pack(">II", stream, (FIN if last else 0) << 24 | len(payload)) + payload


def _head(kind: int, flags: int, length: int) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | length)
