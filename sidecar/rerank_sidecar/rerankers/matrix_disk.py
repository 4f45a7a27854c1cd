"""Encoded documents on disk, in a memory-mapped file of LMDB that several processes may share."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rerank_sidecar.errors import MissingExtra
from rerank_sidecar.rerankers.matrix_bytes import from_bytes, to_bytes
from rerank_sidecar.rerankers.matrix_cache import size_of
from rerank_sidecar.rerankers.token_matrix import EncodedDocument

_LOG = logging.getLogger(__name__)

Library: TypeAlias = Any
Environment: TypeAlias = Any
Database: TypeAlias = Any
Transaction: TypeAlias = Any
Item: TypeAlias = tuple[bytes, EncodedDocument]

_FILE = "data.mdb"
_LEAST_BYTES = 1 << 20
_MOST_SPARE_BYTES = 256 << 20
_WAITING_DOCUMENTS = 1024
_DOCUMENTS_PER_TRANSACTION = 32
_NUMBER_BYTES = 8


class DiskMatrices:
    """Keeps encoded documents in a folder, of at most `max_bytes`; the oldest go first.

    A thread of its own writes, so nobody waits for the disk; what comes faster than the disk takes
    it is not stored. Documents are copied out of the map: they go on living in memory, where an
    open read transaction would keep the file from reusing any page. When something is wrong with
    the folder, the file or the disk, one warning is logged and it goes on as if nothing was stored.

    Raises:
        MissingExtra: the package lmdb is not installed.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._lmdb = _load_lmdb()
        self._max_bytes = max(max_bytes, _LEAST_BYTES)
        self._is_usable = True
        self._waiting: queue.Queue[Item | None] = queue.Queue(_WAITING_DOCUMENTS)
        self._environment: Environment = None
        try:
            self._open(folder)
        except (self._lmdb.Error, OSError, ValueError) as error:
            self._give_up(error)
        self._writer = threading.Thread(target=self._write_all, name="store-matrices", daemon=True)
        self._writer.start()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, EncodedDocument]:
        """Give those documents that are there; copies of what the file has."""
        found: dict[bytes, EncodedDocument] = {}
        if self._is_usable:
            try:
                with self._environment.begin(db=self._documents) as transaction:
                    stored = {key: transaction.get(key) for key in keys}
                for key, data in stored.items():
                    if data is not None:
                        found[key] = from_bytes(data)
            except (self._lmdb.Error, OSError, ValueError) as error:
                self._give_up(error)
        return found

    def put(self, key: bytes, document: EncodedDocument) -> None:
        """Store a document soon, unless too many wait already."""
        if self._is_usable:
            try:
                self._waiting.put_nowait((key, document))
            except queue.Full:
                _LOG.debug("the disk is behind; a document is not stored")

    def close(self) -> None:
        """Store what waits and close the file."""
        self._waiting.put(None)
        self._writer.join()
        self._is_usable = False
        if self._environment is not None:
            self._environment.close()

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._environment = self._lmdb.open(
            str(folder),
            map_size=self._max_bytes,
            max_dbs=2,
            metasync=False,
            readahead=False,
            mode=0o600,  # vectors tell much of the text that they were made from
        )
        self._check_length(folder / _FILE)
        self._environment.reader_check()  # frees the places of processes that died
        self._documents: Database = self._environment.open_db(b"documents")
        self._ages: Database = self._environment.open_db(b"ages")

    def _check_length(self, file: Path) -> None:
        # To touch a mapped page that the file does not have kills the process.
        info, page_bytes = self._environment.info(), self._environment.stat()["psize"]
        if file.stat().st_size < (info["last_pgno"] + 1) * page_bytes:
            raise ValueError("the file has been cut short")

    def _give_up(self, error: Exception) -> None:
        if self._is_usable:
            self._is_usable = False
            _LOG.warning("going on without stored token matrices: %s", error)

    def _write_all(self) -> None:
        goes_on = True
        while goes_on:
            items, goes_on = self._next_items()
            if self._is_usable and items:
                try:
                    self._write(items)
                except Exception as error:  # noqa: BLE001 - who else would empty the queue, or end it?
                    self._give_up(error)

    def _next_items(self) -> tuple[list[Item], bool]:
        """Wait for documents; give what is there, and False once there will be no more."""
        items: list[Item] = []
        size = 0
        item = self._waiting.get()
        while item is not None:
            items.append(item)
            size += size_of(item[1])
            # What a transaction frees can be used again only by the second after it.
            if len(items) == _DOCUMENTS_PER_TRANSACTION or size > self._spare_bytes // 8:
                break
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
        return items, item is not None

    def _write(self, items: list[Item]) -> None:
        try:
            with self._environment.begin(write=True) as transaction:
                for key, document in items:
                    self._add(transaction, key, document)
                self._evict(transaction, self._max_bytes - self._spare_bytes)
        except self._lmdb.MapFullError:
            # What was freed lately, or lies in pieces too small, cannot be used. Make more room for
            # the next; these few are lost.
            with self._environment.begin(write=True) as transaction:
                self._evict(transaction, self._max_bytes // 2)

    @property
    def _spare_bytes(self) -> int:
        return min(self._max_bytes // 4, _MOST_SPARE_BYTES)

    def _add(self, transaction: Transaction, key: bytes, document: EncodedDocument) -> None:
        if transaction.put(key, to_bytes(document), overwrite=False, db=self._documents):
            with transaction.cursor(db=self._ages) as cursor:
                latest = int.from_bytes(cursor.key(), "big") if cursor.last() else 0
            age = (latest + 1).to_bytes(_NUMBER_BYTES, "big")
            transaction.put(age, key, append=True, db=self._ages)

    def _evict(self, transaction: Transaction, most_bytes: int) -> None:
        with transaction.cursor(db=self._ages) as cursor:
            while self._used_bytes(transaction) > most_bytes and cursor.first():
                transaction.delete(bytes(cursor.value()), db=self._documents)
                cursor.delete()

    def _used_bytes(self, transaction: Transaction) -> int:
        pages = 0
        for database in (self._documents, self._ages):
            statistics = transaction.stat(database)
            pages += statistics["branch_pages"] + statistics["leaf_pages"]
            pages += statistics["overflow_pages"]
        return int(pages * statistics["psize"])


def _load_lmdb() -> Library:
    try:
        import lmdb
    except ImportError as error:
        raise MissingExtra("disk-cache", "keeping token matrices on disk") from error
    return lmdb
