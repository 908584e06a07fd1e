"""Work over tiles: one BLAS thread each, as many workers as cores, results in order.

Fixed tiles, each computed by a single BLAS thread, give the same bits whatever the number of
cores: how OpenBLAS splits a product among its own threads can change the last bits.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import numpy as np  # noqa: F401 - loads the module that links OpenBLAS

Item = TypeVar("Item")
Made = TypeVar("Made")

_NAMES = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
)
_lock = threading.Lock()
_holders = [0]
_before = [1]


def worker_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return max(os.cpu_count() or 1, 1)


def in_parallel(work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """``[work(item) for item in items]`` on all cores, in the order of the items."""
    todo = list(items)
    workers = min(worker_count(), len(todo))
    if workers < 2:
        with one_blas_thread():
            return [work(item) for item in todo]
    with one_blas_thread(), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, todo))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold NumPy's BLAS to one thread; nested and concurrent holders are counted."""
    switch = _blas_switch()
    if switch is None:
        yield
        return
    read, write = switch
    with _lock:
        if _holders[0] == 0:
            _before[0] = int(read())
            write(1)
        _holders[0] += 1
    try:
        yield
    finally:
        with _lock:
            _holders[0] -= 1
            if _holders[0] == 0:
                write(_before[0])


@cache
def _blas_switch() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """OpenBLAS's thread functions, through the extension module that NumPy links to it."""
    library = ctypes.CDLL(sys.modules["numpy._core._multiarray_umath"].__file__ or "")
    for read, write in _NAMES:
        if hasattr(library, read) and hasattr(library, write):
            return getattr(library, read), getattr(library, write)
    return None
