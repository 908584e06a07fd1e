"""One attempt at a state: what its expressions see, and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .definition import Catcher, Choice, Map, Parallel, Rule, State
from .errors import QUERY, RUNTIME, StateError
from .expressions import Template
from .scopes import Scope
from .values import JSON, check_size, to_text

FOREVER_S = 99_999_999


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a state runs: its variables, its context and what stops it."""

    scope: Scope
    execution: str
    variables: dict[str, JSON]
    context: dict[str, JSON]
    within: tuple[str, ...] = ()
    child: int | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """One attempt at a state."""

    state: State
    input: JSON
    frame: Frame
    context: dict[str, JSON]

    def bindings(self, **more: JSON) -> dict[str, Any]:
        """What expressions of the state see."""
        states: dict[str, JSON] = {"input": self.input, "context": self.context, **more}
        return {**self.frame.variables, "states": states}

    @property
    def name(self) -> str:
        return self.state.name


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a state leaves: its output, the next state (``None`` at the end), new variables."""

    output: JSON
    next: str | None
    assign: dict[str, JSON]


def finish(visit: Visit, result: tuple[JSON] | None = None) -> Outcome:
    """Output and Assign of a state that did its work; ``result`` in a tuple if it has one."""
    state = visit.state
    more: dict[str, JSON] = {} if result is None else {"result": result[0]}
    output = visit.input if result is None else result[0]
    return _outcome(visit, more, state, otherwise=output, next_=state.next)


def caught(visit: Visit, catcher: Catcher, error: StateError) -> Outcome:
    """Output and Assign of a catcher."""
    shown: JSON = {"Error": error.error, "Cause": error.cause}
    more: dict[str, JSON] = {"errorOutput": shown}
    return _outcome(visit, more, catcher, otherwise=shown, next_=catcher.next)


def choose(state: Choice, visit: Visit) -> Outcome:
    """The first rule of a Choice that holds, or its Default."""
    bindings = visit.bindings()
    for rule in state.rules:
        holds = rule.condition.evaluate(bindings)
        if not isinstance(holds, bool):
            raise StateError(
                QUERY, f"a Condition of state '{visit.name}' gave {to_text(holds)}, not a boolean"
            )
        if holds:
            return _outcome(visit, {}, rule, otherwise=visit.input, next_=rule.next)
    if state.next is None:
        raise StateError(
            RUNTIME, f"no choice of state '{visit.name}' matched and it has no Default"
        )
    return finish(visit)


def _outcome(
    visit: Visit,
    more: Mapping[str, JSON],
    rule: State | Rule | Catcher,
    *,
    otherwise: JSON,
    next_: str | None,
) -> Outcome:
    bindings = visit.bindings(**more)
    value = otherwise if rule.output is None else rule.output.evaluate(bindings)
    if rule.output is not None or isinstance(visit.state, Parallel | Map):
        check_size(value, visit.name, "an output")
    # All see the variables as they were on entry; new values count from the next state on.
    assigned = {name: template.evaluate(bindings) for name, template in rule.assign.items()}
    for name, given in assigned.items():
        check_size(given, visit.name, f"a variable ${name}")
    return Outcome(value, next_, assigned)


def address(template: Template, visit: Visit, where: str, second: str) -> tuple[str, str]:
    """Bucket and key (or prefix) of a reader or writer."""
    value = template.evaluate(visit.bindings())
    if not isinstance(value, dict):
        raise StateError(QUERY, f"{where}.Arguments of state '{visit.name}' are no object")
    return (
        text_of(value.get("Bucket"), visit, f"{where}.Bucket"),
        text_of(value.get(second), visit, f"{where}.{second}"),
    )


def text_of(value: JSON, visit: Visit, where: str) -> str:
    """``value``, which must be a string."""
    if not isinstance(value, str):
        raise StateError(QUERY, f"{where} of state '{visit.name}' is not a string")
    return value


def limit_of(
    template: Template | None,
    visit: Visit,
    where: str,
    *,
    least: float = 0,
    most: float = FOREVER_S,
    whole: bool = True,
) -> float | None:
    """The number in an optional field."""
    if template is None:
        return None
    value = template.evaluate(visit.bindings())
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= most
        or (whole and value != int(value))
    ):
        kind = "whole number" if whole else "number"
        raise StateError(
            QUERY, f"{where} of state '{visit.name}' is not a {kind} from {least:g} to {most:g}"
        )
    return float(value)


def number_or(
    template: Template | None, visit: Visit, where: str, default: float, *, least: float = 1
) -> float:
    """The number in a field, or what the language says when it is absent."""
    found = limit_of(template, visit, where, least=least)
    return default if found is None else found
