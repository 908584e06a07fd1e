"""``imageclust run`` that the system kills at the N-th write: ``killed_run.py N before|after …``.

A write is anything that reaches the state folder: an object, table items, vectors of the index.
With N = 0 it counts the writes and tells how many there were.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from imageclust.adapters.local.file_store import FileStore
from imageclust.adapters.local.file_vector_index import FileVectorIndex
from imageclust.adapters.local.sqlite_table import SqliteTable
from imageclust.steps import search_progress

from local.cli import main

_count = 0
_lock = threading.Lock()


def fatal(write: Callable[..., Any], number: int, when: str) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        global _count
        with _lock:
            _count += 1
            mine = _count == number
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = write(*arguments, **options)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return counted


if __name__ == "__main__":
    number, when = int(sys.argv[1]), sys.argv[2]
    search_progress._EVERY_S = float("inf")  # a slow machine writes as often as a fast one
    for owner, names in (
        (FileStore, ("write",)),
        (SqliteTable, ("put", "put_many", "update")),
        (FileVectorIndex, ("create", "put", "keep")),
    ):
        for name in names:
            setattr(owner, name, fatal(getattr(owner, name), number, when))
    code = main(sys.argv[3:])
    print(f"{_count} writes", file=sys.stderr)
    sys.exit(code)
