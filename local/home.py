"""The state folder of this machine, and the services over it."""

import os
from collections.abc import Callable
from pathlib import Path

from imageclust.wiring import Services, local_services

from local.runner import Event
from local.workflows import LocalWorkflows

HOME_VARIABLE = "IMAGECLUST_HOME"
MODELS_VARIABLE = "IMAGECLUST_MODELS"


def find_home(given: str | None) -> Path:
    """``--home``, else ``$IMAGECLUST_HOME``, else ``.imageclust`` in the current folder."""
    return Path(given or os.environ.get(HOME_VARIABLE) or ".imageclust").expanduser().absolute()


def model_folders() -> list[Path]:
    """Folders of models named by ``$IMAGECLUST_MODELS`` (separated as in ``$PATH``)."""
    named = os.environ.get(MODELS_VARIABLE, "")
    return [Path(folder).expanduser() for folder in named.split(os.pathsep) if folder]


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
        model_folders=model_folders(),
    )
