"""An encoded document as bytes on disk, with a checksum."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from rerank_sidecar.rerankers.token_matrix import EncodedDocument, TokenMatrix
from rerank_sidecar.types import Window

# Checksum of all that follows; matrices; numbers in a vector; 1 if truncated + 2 if it has windows.
_HEADER = struct.Struct("<IIII")
_COLUMNS = 3  # tokens, and the window's characters: start and end


def to_bytes(document: EncodedDocument) -> bytes:
    """Lay a document out: header, one row of integers for each matrix, all scales, all levels."""
    windows = document.windows or (Window(0, 0),) * len(document.matrices)
    table = [
        (len(matrix), window.start, window.end)
        for matrix, window in zip(document.matrices, windows, strict=True)
    ]
    flags = document.truncated + 2 * bool(document.windows)
    header = _HEADER.pack(0, len(table), document.matrices[0].levels.shape[1], flags)
    body = b"".join(
        [
            header[4:],
            np.array(table, dtype="<u4").tobytes(),
            *(matrix.scales.astype("<f4", copy=False).tobytes() for matrix in document.matrices),
            *(matrix.levels.tobytes() for matrix in document.matrices),
        ]
    )
    return struct.pack("<I", zlib.crc32(body)) + body


def from_bytes(data: bytes) -> EncodedDocument:
    """Read what `to_bytes` wrote; the arrays are views of the bytes.

    Raises:
        ValueError: these are not the bytes that were written.
    """
    if len(data) < _HEADER.size or zlib.crc32(memoryview(data)[4:]) != int.from_bytes(
        data[:4], "little"
    ):
        raise ValueError("a stored document is damaged")
    _, count, dimension, flags = _HEADER.unpack_from(data)
    table = np.frombuffer(data, "<u4", count * _COLUMNS, _HEADER.size).reshape(count, _COLUMNS)
    tokens = int(table[:, 0].sum())
    scales_at = _HEADER.size + table.nbytes
    scales = np.frombuffer(data, "<f4", tokens, scales_at)
    levels = np.frombuffer(data, np.int8, tokens * dimension, scales_at + scales.nbytes)
    ends = np.cumsum(table[:, 0])[:-1]
    matrices = map(
        TokenMatrix, np.split(levels.reshape(tokens, dimension), ends), np.split(scales, ends)
    )
    windows = tuple(Window(start, end) for _, start, end in table.tolist()) if flags & 2 else ()
    return EncodedDocument(tuple(matrices), windows, truncated=bool(flags & 1))
