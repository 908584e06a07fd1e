"""Exact cosine search over memory-mapped vectors: no training, no approximation, no server."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imageclust.adapters.local.sqlite_table import open_database, table_error
from imageclust.adapters.vectors import (
    check_filter,
    check_index,
    check_metadata,
    check_query,
    check_vectors,
)
from imageclust.errors import InvalidInput, NotFound, Permanent, StoreUnavailable
from imageclust.late import np
from imageclust.models import JSON
from imageclust.ports import VectorMatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK_ROWS = 16_384
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS header (dimension INTEGER NOT NULL, used INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS vectors "
    "(id TEXT PRIMARY KEY, row INTEGER NOT NULL UNIQUE, metadata TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS replaced (row INTEGER PRIMARY KEY)",
)


class FileVectorIndex:
    """One folder an index: ``vectors.f32`` (unit rows, appended) and ``rows.db`` (ids, metadata).

    A put appends its rows first and commits them in ``rows.db`` after; what a killed put left
    behind the committed rows is overwritten by the next one. A vector that is put again
    unchanged keeps its row; the rows of vectors that were replaced or removed are passed over.

    Args:
        folder: holds one folder an index.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def create(self, index: str, dimension: int) -> None:
        """Make the index; the same dimension again is no error, another raises InvalidInput."""
        check_index(index, dimension)
        with self._database(index, create=True) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "INSERT INTO header SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM header)",
                (dimension,),
            )
            db.execute("COMMIT")
            found, _ = _header(db, index)
        if found != dimension:
            raise InvalidInput(f"The index '{index}' has dimension {found}, not {dimension}.")

    def put(
        self, index: str, ids: Sequence[str], vectors: NDArray[np.float32], metadata: Sequence[JSON]
    ) -> None:
        """Insert or replace vectors; of an id that comes twice the last one stays."""
        with self._database(index) as db:
            dimension, _ = _header(db, index)
            rows = check_vectors(ids, vectors, metadata, dimension=dimension)
            if not len(rows):
                return
            texts = [check_metadata(record) for record in metadata]
            db.execute("BEGIN IMMEDIATE")
            try:
                for start in range(0, len(rows), _BLOCK_ROWS):
                    part = slice(start, start + _BLOCK_ROWS)
                    self._append(db, index, ids[part], _unit(rows[part]), texts[part])
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def query(
        self,
        index: str,
        vector: NDArray[np.float32],
        *,
        top_k: int,
        where: Mapping[str, Any] | None = None,
    ) -> tuple[VectorMatch, ...]:
        """The ``top_k`` nearest, nearest first, ties by id. Peak memory: one score a vector."""
        check_filter(where or {})
        with self._database(index) as db:
            db.execute("BEGIN")  # one state for the header, the filter and the answers
            dimension, used = _header(db, index)
            aim = check_query(vector, dimension=dimension, top_k=top_k)
            rows = self._vectors(index, used, dimension)
            chosen = _chosen_rows(db, used, where)
            scores = _scores(rows, aim, chosen)
            best = _best(scores, top_k)
            numbers = best if chosen is None else chosen[best]
            matches = [
                VectorMatch(name, distance, json.loads(text))
                for (name, text), distance in zip(
                    _named(db, numbers), (1.0 - scores[best]).clip(0, 2).tolist(), strict=True
                )
            ]
            db.execute("COMMIT")
        return tuple(sorted(matches, key=lambda match: (match.distance, match.id))[:top_k])

    def keep(self, index: str, ids: Collection[str]) -> None:
        """Remove every vector but those of ``ids``. One that is not there is no error."""
        with self._database(index) as db:
            _header(db, index)
            db.execute("CREATE TEMP TABLE kept (id TEXT PRIMARY KEY)")
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((name,) for name in ids))
            others = "FROM vectors WHERE id NOT IN (SELECT id FROM kept)"
            db.execute(f"INSERT INTO replaced SELECT row {others}")
            db.execute(f"DELETE {others}")
            db.execute("COMMIT")

    def _append(
        self,
        db: sqlite3.Connection,
        index: str,
        ids: Sequence[str],
        unit: NDArray[np.float32],
        texts: Sequence[str],
    ) -> None:
        # Read again inside the transaction: another writer may have appended meanwhile.
        dimension, used = _header(db, index)
        stored = self._vectors(index, used, dimension)
        records: list[tuple[str, int, str]] = []
        fresh: list[int] = []
        for name, number in {name: number for number, name in enumerate(ids)}.items():
            old = db.execute("SELECT row FROM vectors WHERE id = ?", (name,)).fetchone()
            if old is not None and np.array_equal(stored[old[0]], unit[number]):
                row = old[0]
            else:
                if old is not None:
                    db.execute("INSERT INTO replaced VALUES (?)", old)
                row = used + len(fresh)
                fresh.append(number)
            records.append((name, row, texts[number]))
        if fresh:
            self._write_rows(index, used * dimension * 4, unit[fresh])
        db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", records)
        db.execute("UPDATE header SET used = ?", (used + len(fresh),))

    def _write_rows(self, index: str, offset: int, rows: NDArray[np.float32]) -> None:
        path = self._file(index)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as stream:
                stream.seek(offset)
                stream.write(rows.tobytes())
                stream.truncate()
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise StoreUnavailable(f"{path} could not be written: {error.strerror}.") from error

    def _vectors(self, index: str, used: int, dimension: int) -> NDArray[np.float32]:
        if used == 0:
            return np.zeros((0, dimension), dtype=np.float32)
        path = self._file(index)
        try:
            return np.memmap(path, dtype="<f4", mode="r", shape=(used, dimension))
        except (OSError, ValueError) as error:
            raise StoreUnavailable(f"{path} does not hold its {used} vectors: {error}.") from error

    def _file(self, index: str) -> Path:
        return self._folder / index / "vectors.f32"

    @contextmanager
    def _database(self, index: str, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        check_index(index, 1)
        path = self._folder / index / "rows.db"
        if not create and not path.exists():
            raise NotFound(f"There is no vector index '{index}'.")
        try:
            db = open_database(path, *_SCHEMA)
            try:
                yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise table_error(error, path) from error
        except OSError as error:
            raise Permanent(f"{path} cannot be opened: {error.strerror}.") from error


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return np.ascontiguousarray(rows / np.sqrt(squares)[:, None], dtype="<f4")


def _header(db: sqlite3.Connection, index: str) -> tuple[int, int]:
    row = db.execute("SELECT dimension, used FROM header").fetchone()
    if row is None:
        raise NotFound(f"There is no vector index '{index}'.")
    return int(row[0]), int(row[1])


def _chosen_rows(
    db: sqlite3.Connection, used: int, where: Mapping[str, Any] | None
) -> NDArray[np.int64] | None:
    """Rows that take part, ascending; None means all of them."""
    if not where:
        gone = [row for (row,) in db.execute("SELECT row FROM replaced")]
        if not gone:
            return None
        return np.delete(np.arange(used, dtype=np.int64), gone)
    conditions: list[str] = []
    parameters: list[str | int | float] = []
    extra: list[str | int | float]
    for name, value in where.items():
        match value:
            case bool():
                test, extra = f"type = '{str(value).lower()}'", []
            case int() | float():
                test, extra = "type IN ('integer', 'real') AND value = ?", [value]
            case _:
                test, extra = "type = 'text' AND value = ?", [value]
        # json_each gives a scalar as one row and a list as its elements: equal, or contains.
        conditions.append(f"EXISTS (SELECT 1 FROM json_each(metadata, ?) WHERE {test})")  # noqa: S608
        parameters += [f'$."{name}"', *extra]
    query = f"SELECT row FROM vectors WHERE {' AND '.join(conditions)} ORDER BY row"  # noqa: S608
    rows = [row for (row,) in db.execute(query, parameters)]
    return np.asarray(rows, dtype=np.int64)


def _scores(
    rows: NDArray[np.float32], aim: NDArray[np.float32], chosen: NDArray[np.int64] | None
) -> NDArray[np.float32]:
    """Cosines ``(m,)`` with the chosen rows, a block at a time."""
    count = len(rows) if chosen is None else len(chosen)
    scores = np.empty(count, dtype=np.float32)
    for start in range(0, count, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, count)
        block = rows[start:stop] if chosen is None else rows[chosen[start:stop]]
        np.matmul(block, aim, out=scores[start:stop])
    return scores


def _best(scores: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """Places of the ``top_k`` highest scores and of all that tie with the last of them."""
    if len(scores) <= top_k:
        return np.arange(len(scores), dtype=np.int64)
    limit = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
    return np.flatnonzero(scores >= limit)


def _named(db: sqlite3.Connection, rows: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
    for row in rows.tolist():
        yield db.execute("SELECT id, metadata FROM vectors WHERE row = ?", (row,)).fetchone()
