"""The state folder of this machine, and the services over it."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from imageclust.errors import InvalidInput
from imageclust.wiring import LOCAL_SETTINGS, Services, local_services

from local.runner import Event
from local.workflows import LocalWorkflows

FAILURES = "failures.log"
HOME_VARIABLE = "IMAGECLUST_HOME"
MODELS_VARIABLE = "IMAGECLUST_MODELS"
MEGAPIXELS_VARIABLE = "IMAGECLUST_MAX_MEGAPIXELS"
_MOST_MEGAPIXELS = 1_000


def find_home(given: str | None) -> Path:
    """``--home``, else ``$IMAGECLUST_HOME``, else ``.imageclust`` in the current folder."""
    return Path(given or os.environ.get(HOME_VARIABLE) or ".imageclust").expanduser().absolute()


def model_folders() -> list[Path]:
    """Folders of models named by ``$IMAGECLUST_MODELS`` (separated as in ``$PATH``)."""
    named = os.environ.get(MODELS_VARIABLE, "")
    return [Path(folder).expanduser() for folder in named.split(os.pathsep) if folder]


def max_megapixels() -> int:
    """``$IMAGECLUST_MAX_MEGAPIXELS``, else 200: larger pictures are rejected undecoded."""
    given = os.environ.get(MEGAPIXELS_VARIABLE) or str(LOCAL_SETTINGS.max_megapixels)
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= _MOST_MEGAPIXELS):
        raise InvalidInput(
            f"{MEGAPIXELS_VARIABLE} must be a whole number from 1 to {_MOST_MEGAPIXELS}, "
            f"not {given!r}"
        )
    return int(given)


class _FailureLog(logging.FileHandler):
    """A file that begins with its first record. That the disk takes none is told elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


@contextlib.contextmanager
def failures_logged(home: Path) -> Iterator[None]:
    """Where the steps of a workflow failed, meanwhile, goes to ``failures.log`` of ``home``."""
    logger = logging.getLogger("local.runner")
    handler = _FailureLog(home / FAILURES, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


def open_services(
    home: Path,
    *,
    listener: Callable[[str, Event], None] | None = None,
    base_url: str = "http://127.0.0.1:8080",
) -> Services:
    """Services over the state folder; PermissionError or OSError when it cannot be made."""
    return local_services(
        home,
        workflows=lambda store: LocalWorkflows(store, home=home, listener=listener),
        base_url=base_url,
        settings=replace(LOCAL_SETTINGS, max_megapixels=max_megapixels()),
        model_folders=model_folders(),
    )
