"""Runs an Amazon States Language file (JSONata) on one machine: the subset that we use, faithfully.

``Workflow(load_definition(path, {...}), resources=...).run(input, name=...)``
"""

from .definition import load_definition
from .engine import Execution, Workflow
from .errors import InvalidDefinition, StateError, TaskDoesNotExist, TaskTimedOut
from .events import Event, Listener
from .resources import Resources
from .tokens import TokenBroker
from .values import JSON

__all__ = [
    "JSON",
    "Event",
    "Execution",
    "InvalidDefinition",
    "Listener",
    "Resources",
    "StateError",
    "TaskDoesNotExist",
    "TaskTimedOut",
    "TokenBroker",
    "Workflow",
    "load_definition",
]
