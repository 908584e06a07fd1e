"""Where ports meet adapters: the only module that imports adapters or reads the environment.

A Lambda function wires itself to AWS on first use. On one machine the command line calls
``use(local_services(...))`` first, and the same handlers then work on files and SQLite.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imageclust.ports import (
    BatchDescriber,
    Describer,
    Events,
    Labeler,
    Links,
    ObjectStore,
    Scheduler,
    Table,
    VectorIndex,
    Workflows,
)
from imageclust.settings import Settings

if TYPE_CHECKING:
    from imageclust.embedding import Embedder


@dataclass(frozen=True)
class Services:
    """Every port, bound to one side of the world.

    ``decode`` turns file contents into pictures of at least the given short side, in order, a
    rejection standing where one cannot be decoded. The ``open_`` functions take the name of a model as a run's configuration gives it
    (``auto`` included); weights are loaded at first use, so opening only to read the key is cheap.
    """

    settings: Settings
    store: ObjectStore
    table: Table
    index: VectorIndex
    workflows: Workflows
    scheduler: Scheduler
    events: Events
    links: Links
    decode: "Callable[[Sequence[bytes], int], Iterable[Processed | RejectedImage]]"
    open_embedder: "Callable[[str, str], Embedder]"
    open_labeler: Callable[[str], Labeler | None]
    open_describer: Callable[[str], Describer]
    open_batch_describer: Callable[[str], BatchDescriber]


_current: list[Services] = []


def use(services: Services) -> None:
    """Bind the process to these services (the local side, and tests)."""
    _current[:] = [services]


def services() -> Services:
    """The services of this process; AWS from the environment unless ``use`` bound others."""
    if not _current:
        _current.append(aws_services(Settings.from_environment(os.environ)))
    return _current[0]
