"""Bodies that a client compressed (`Content-Encoding`), inflated a little at a time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from types import MappingProxyType

from rerank_sidecar.errors import MalformedBody

_STEP_BYTES = 262_144
"""Inflated at once: takes about a millisecond, for which other callers wait."""

_WINDOW_BITS: Mapping[str, int] = MappingProxyType(
    {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's numbers for the two formats
)


async def inflated(pieces: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Undo a `Content-Encoding` of RFC 9110, section 8.4: gzip, deflate, or none.

    Gives at most 256 KiB at once, so that who counts them can stop in time.

    Raises:
        MalformedBody: the encoding is another one, or the bytes are not of that encoding.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        async for piece in pieces:
            yield piece
        return
    if name not in _WINDOW_BITS:
        raise MalformedBody("body: Content-Encoding must be gzip, deflate or identity")
    stream = _Stream(name)
    async for piece in pieces:
        for part in stream.inflate(piece):
            yield part
            await asyncio.sleep(0)
    stream.end()


class _Stream:
    def __init__(self, name: str) -> None:
        self._name = name
        self._inflater = zlib.decompressobj(_WINDOW_BITS[name])

    def inflate(self, data: bytes) -> Iterator[bytes]:
        try:
            while data:
                if self._inflater.eof:
                    self._begin_member()
                yield from self._inflate_member(data)
                data = self._inflater.unused_data
        except zlib.error:
            raise MalformedBody(f"body: not in the format {self._name}") from None

    def end(self) -> None:
        if not self._inflater.eof:
            raise MalformedBody(f"body: the {self._name} data ends too early")

    def _inflate_member(self, data: bytes) -> Iterator[bytes]:
        part = self._inflater.decompress(data, _STEP_BYTES)
        yield part
        # A full step may have left input, and output of input that was taken.
        while len(part) == _STEP_BYTES:
            part = self._inflater.decompress(self._inflater.unconsumed_tail, _STEP_BYTES)
            yield part

    def _begin_member(self) -> None:
        if self._name == "deflate":
            raise MalformedBody("body: there is more after the end of the deflate data")
        # RFC 1952, section 2.2: a gzip file is one member after another.
        self._inflater = zlib.decompressobj(_WINDOW_BITS[self._name])
