"""The table in one SQLite file: DynamoDB's keys and conditions, on one machine."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

from imageclust.adapters.cursors import decode_cursor, encode_cursor
from imageclust.errors import Conflict, CorruptData, InvalidInput, Permanent, StoreUnavailable
from imageclust.models import JSON
from imageclust.ports import Key, Page

_BUSY_SECONDS = 60.0
_KEYS_A_QUERY = 400
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CLOSED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
_TRY_LATER = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR,
              sqlite3.SQLITE_NOMEM}  # fmt: skip


class SqliteTable:
    """Items in a SQLite file (WAL), safe for many threads and processes.

    Each write is one transaction; killing the process loses at most the one in flight. Keys are
    compared bytewise as UTF-8, as DynamoDB does.

    Args:
        path: the file; it and its folder are made at the first use.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def get(self, pk: str, sk: str) -> JSON | None:
        with self._reading() as db:
            return _get(db, pk, sk)

    def put(self, item: JSON, *, unless_exists: bool = False) -> None:
        """Write the whole item. With ``unless_exists`` an existing one raises Conflict."""
        row = _row(item)
        verb = "INSERT OR IGNORE" if unless_exists else "INSERT OR REPLACE"
        with self._writing() as db:
            changed = db.execute(f"{verb} INTO items VALUES (?, ?, ?)", row).rowcount
        if not changed:
            raise Conflict(f"The item {item['pk']} / {item['sk']} exists already.")

    def update(
        self, pk: str, sk: str, changes: JSON, *, expect: Mapping[str, Any] | None = None
    ) -> JSON:
        """Set the attributes of ``changes``; see ``ports.Table``."""
        if {"pk", "sk"} & set(changes):
            raise InvalidInput("The keys of an item cannot be changed.")
        with self._writing() as db:
            found = _get(db, pk, sk) or {}
            for name, value in (expect or {}).items():
                if not _same(found.get(name), value):
                    raise Conflict(f"The item {pk} / {sk} has changed: its {name} is another.")
            item = {**found, **changes, "pk": pk, "sk": sk}
            item = {name: value for name, value in item.items()
                    if value is not None or name not in changes}  # fmt: skip
            row = _row(item)
            db.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", row)
        return cast(JSON, json.loads(row[2]))

    def delete(self, pk: str, sk: str) -> None:
        with self._writing() as db:
            db.execute("DELETE FROM items WHERE pk = ? AND sk = ?", (_key(pk), _key(sk)))

    def get_many(self, keys: Iterable[Key]) -> dict[Key, JSON]:
        """The items that exist among any number of keys."""
        found: dict[Key, JSON] = {}
        pending = iter(keys)
        while chunk := list(islice(pending, _KEYS_A_QUERY)):
            wanted = ",".join(["(?, ?)"] * len(chunk))
            # A join and not IN: SQLite scans the whole table for row values in a list.
            query = (
                f"WITH wanted(pk, sk) AS (VALUES {wanted}) SELECT items.body FROM wanted "  # noqa: S608
                "CROSS JOIN items ON items.pk = wanted.pk AND items.sk = wanted.sk"
            )
            parameters = [_key(part) for key in chunk for part in key]
            with self._reading() as db:
                for (body,) in db.execute(query, parameters):
                    item = cast(JSON, json.loads(body))
                    found[item["pk"], item["sk"]] = item
        return found

    def put_many(self, items: Iterable[JSON]) -> None:
        """Write the items in one transaction; of two with the same key the last one stays."""
        rows = [_row(item) for item in items]
        if rows:
            with self._writing() as db:
                db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows)

    def query(
        self,
        pk: str,
        *,
        prefix: str = "",
        limit: int | None = None,
        after: str | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Items of one ``pk`` in the order of ``sk``; see ``ports.Table``."""
        if limit is not None and limit < 1:
            raise InvalidInput("A page must hold at least one item.")
        low, high = _key(prefix) if prefix else b"", _after_prefix(prefix)
        conditions, parameters = ["pk = ?", "sk >= ?"], [_key(pk), low]
        if high is not None:
            conditions.append("sk < ?")
            parameters.append(high)
        if after is not None:
            conditions.append("sk < ?" if newest_first else "sk > ?")
            parameters.append(_key(decode_cursor(after, pk=pk, prefix=prefix)))
        query = (
            f"SELECT body FROM items WHERE {' AND '.join(conditions)} "  # noqa: S608
            f"ORDER BY sk {'DESC' if newest_first else 'ASC'} LIMIT ?"
        )
        most = -1 if limit is None else limit + 1
        with self._reading() as db:
            bodies = [body for (body,) in db.execute(query, (*parameters, most))]
        items = tuple(json.loads(body) for body in bodies[: limit or len(bodies)])
        more = limit is not None and len(bodies) > limit
        return Page(items, encode_cursor(pk, items[-1]["sk"]) if more else None)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _mapped(self._path):
            yield self._open()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _mapped(self._path):
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_database(
                self._path,
                "CREATE TABLE IF NOT EXISTS items "
                "(pk BLOB NOT NULL, sk BLOB NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pk, sk)) "
                "WITHOUT ROWID",
            )
        return self._connection


def open_database(path: Path, *schema: str) -> sqlite3.Connection:
    """A connection in autocommit and WAL mode, with these tables; errors are sqlite3's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # In WAL mode NORMAL survives a killed process whole; a power cut may lose the newest
        # transactions but never breaks the file.
        db.execute("PRAGMA synchronous = NORMAL")
        for statement in schema:
            db.execute(statement)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Turn SQLite's and the file system's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise table_error(error, path) from error
    except OSError as error:
        raise Permanent(f"{path} cannot be opened: {error.strerror}.") from error


def table_error(error: sqlite3.Error, path: Path) -> Exception:
    """The class of our tree for an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return Permanent(
            f"{path} cannot be written because the disk is full: free some space and run again; "
            "what is stored so far is kept."
        )
    if code in _TRY_LATER:
        return StoreUnavailable(f"{path} is busy or did not answer: {error}.")
    if code in _CORRUPT:
        return CorruptData(f"{path} is damaged or is not a database: {error}.")
    if code in _CLOSED:
        return Permanent(
            f"{path} cannot be opened and written ({error}): it needs the right to, or choose "
            "another state folder with --home."
        )
    return Permanent(f"{path} cannot be used: {error}.")


def _get(db: sqlite3.Connection, pk: str, sk: str) -> JSON | None:
    query = "SELECT body FROM items WHERE pk = ? AND sk = ?"
    with closing(db.execute(query, (_key(pk), _key(sk)))) as rows:
        row = rows.fetchone()
    return cast(JSON, json.loads(row[0])) if row else None


def _row(item: JSON) -> tuple[bytes, bytes, str]:
    try:
        pk, sk = _key(item["pk"]), _key(item["sk"])
    except KeyError as missing:
        raise InvalidInput(f"An item needs {missing}.") from None
    try:
        return pk, sk, json.dumps(item, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The item {item['pk']} is not JSON: {error}.") from error


def _key(text: Any) -> bytes:
    if not isinstance(text, str) or not text:
        raise InvalidInput(f"The keys of an item are text and not empty, not {text!r}.")
    # File names that are not UTF-8 reach us with surrogates, which plain UTF-8 refuses.
    return text.encode("utf-8", "surrogatepass")


def _after_prefix(prefix: str) -> bytes | None:
    """The smallest key above all that begin with ``prefix``; None when there is no bound."""
    stem = prefix.encode("utf-8", "surrogatepass").rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def _same(found: Any, expected: Any) -> bool:
    return isinstance(found, bool) == isinstance(expected, bool) and bool(found == expected)
