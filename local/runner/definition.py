"""Workflow files, read into records. What the runner does not know is refused here, by name.

Source: the Amazon States Language specification and the AWS Step Functions developer guide, for
``QueryLanguage`` JSONata.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .errors import RUNTIME, InvalidDefinition
from .expressions import Template, compile_template, constant
from .values import JSON

LAMBDA = "arn:aws:states:::lambda:invoke"
LAMBDA_TOKEN = "arn:aws:states:::lambda:invoke.waitForTaskToken"  # noqa: S105 - no password
BATCH_SYNC = "arn:aws:states:::batch:submitJob.sync"
GET_OBJECT = "arn:aws:states:::s3:getObject"
PUT_OBJECT = "arn:aws:states:::s3:putObject"
RESOURCES = (LAMBDA, LAMBDA_TOKEN, BATCH_SYNC)

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9_]+)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}", re.ASCII)
_MAX_NAME = 80
_MAX_SECONDS = 99_999_999
_JSONPATH = frozenset(
    {
        "InputPath",
        "OutputPath",
        "Parameters",
        "Result",
        "ResultPath",
        "ResultSelector",
        "ItemsPath",
        "Iterator",
        "Variable",
        "SecondsPath",
        "TimestampPath",
        "TimeoutSecondsPath",
        "HeartbeatSecondsPath",
        "MaxConcurrencyPath",
        "MaxItemsPath",
        "MaxItemsPerBatchPath",
        "MaxInputBytesPerBatchPath",
        "ErrorPath",
        "CausePath",
        "ToleratedFailureCountPath",
        "ToleratedFailurePercentagePath",
    }
)
_LAMBDA_ARGUMENTS = frozenset({"FunctionName", "Payload"})


@dataclass(frozen=True, slots=True)
class Retrier:
    errors: tuple[str, ...]
    interval_s: float
    attempts: int
    backoff: float
    most_s: float | None
    jitter: bool


@dataclass(frozen=True, slots=True)
class Catcher:
    errors: tuple[str, ...]
    next: str
    assign: Mapping[str, Template]
    output: Template | None


@dataclass(frozen=True, slots=True)
class _State:
    """What all states have. ``next`` is ``None`` where the workflow or branch ends."""

    name: str
    type: str
    next: str | None
    assign: Mapping[str, Template]
    output: Template | None
    retry: tuple[Retrier, ...]
    catch: tuple[Catcher, ...]


@dataclass(frozen=True, slots=True)
class Pass(_State):
    pass


@dataclass(frozen=True, slots=True)
class Succeed(_State):
    pass


@dataclass(frozen=True, slots=True)
class Fail(_State):
    error: Template
    cause: Template


@dataclass(frozen=True, slots=True)
class Wait(_State):
    seconds: Template | None
    until: Template | None


@dataclass(frozen=True, slots=True)
class Rule:
    condition: Template
    next: str
    assign: Mapping[str, Template]
    output: Template | None


@dataclass(frozen=True, slots=True)
class Choice(_State):
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Task(_State):
    resource: str
    arguments: Template | None
    timeout_s: Template | None


@dataclass(frozen=True, slots=True)
class Parallel(_State):
    arguments: Template | None
    branches: "tuple[Machine, ...]"


@dataclass(frozen=True, slots=True)
class Batcher:
    items: Template
    input: Template | None


@dataclass(frozen=True, slots=True)
class Map(_State):
    """``reader`` and ``writer`` are the arguments of ItemReader and ResultWriter."""

    items: Template | None
    selector: Template | None
    concurrency: Template
    processor: "Machine"
    distributed: bool
    reader: Template | None
    batcher: Batcher | None
    writer: Template | None
    tolerated_count: Template | None
    tolerated_percentage: Template | None


State: TypeAlias = Pass | Succeed | Fail | Wait | Choice | Task | Parallel | Map


@dataclass(frozen=True, slots=True)
class Machine:
    """A workflow, a branch or the processor of a Map."""

    start_at: str
    states: Mapping[str, State]
    timeout_s: float | None = None


def load_definition(path: Path, substitutions: Mapping[str, str]) -> dict[str, JSON]:
    """Read a workflow file and fill in its ``${Placeholders}``.

    Args:
        path: the ``.asl.json`` file.
        substitutions: a value for each placeholder, neither more nor fewer.

    Raises:
        InvalidDefinition: not JSON, or a placeholder without a value, or a value without one.
    """
    text = path.read_text(encoding="utf-8")
    try:
        definition = json.loads(text, object_pairs_hook=_no_duplicates)
    except ValueError as error:
        raise InvalidDefinition(path.name, f"not JSON: {error}") from None
    if not isinstance(definition, dict):
        raise InvalidDefinition(path.name, "not a JSON object")
    used = set(_PLACEHOLDER.findall(text))
    if missing := sorted(used - set(substitutions)):
        raise InvalidDefinition(path.name, f"no value for the placeholders {', '.join(missing)}")
    if unused := sorted(set(substitutions) - used):
        raise InvalidDefinition(path.name, f"no placeholder for the values {', '.join(unused)}")
    filled = _fill(definition, substitutions)
    assert isinstance(filled, dict)  # noqa: S101 - filling keeps the shape
    return filled


def parse_definition(definition: Mapping[str, JSON]) -> Machine:
    """Check a definition and compile its expressions.

    Raises:
        InvalidDefinition: with the state and the field that are wrong or unknown.
    """
    top = _Fields(definition, "the workflow")
    if top.take("QueryLanguage", "JSONPath") != "JSONata":
        raise InvalidDefinition("the workflow", "QueryLanguage: only JSONata is supported")
    top.take("Comment")
    if top.take("Version", "1.0") != "1.0":
        raise InvalidDefinition("the workflow", "Version: only 1.0 is known")
    limit = top.take("TimeoutSeconds")
    timeout_s = None if limit is None else _number(limit, top.where, "TimeoutSeconds", 1)
    return _Parser().machine(top, variables=frozenset(), timeout_s=timeout_s)


class _Fields:
    """The fields of one object; what nobody took is unknown."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise InvalidDefinition(where, "must be a JSON object")
        self.where = where
        self._left: dict[str, JSON] = dict(value)

    def take(self, name: str, default: JSON = None) -> JSON:
        return self._left.pop(name, default)

    def has(self, name: str) -> bool:
        return name in self._left

    def text(self, name: str) -> str:
        value = self._left.pop(name, None)
        if not isinstance(value, str) or not value:
            raise InvalidDefinition(self.where, f"{name}: a non-empty string is required")
        return value

    def template(self, name: str) -> Template | None:
        if name not in self._left:
            return None
        return compile_template(self._left.pop(name), where=self.where, field=name)

    def inner(self, name: str) -> "_Fields | None":
        if name not in self._left:
            return None
        return _Fields(self._left.pop(name), f"{self.where}, {name}")

    def array(self, name: str) -> list[JSON]:
        value = self._left.pop(name, [])
        if not isinstance(value, list):
            raise InvalidDefinition(self.where, f"{name}: must be an array")
        return value

    def end(self) -> None:
        for name in self._left:
            if name in _JSONPATH:
                raise InvalidDefinition(self.where, f"{name}: belongs to JSONPath, not supported")
            raise InvalidDefinition(self.where, f"{name}: unknown or unsupported field")


class _Parser:
    def __init__(self) -> None:
        self._names: set[str] = set()

    def machine(
        self, top: _Fields, *, variables: frozenset[str], timeout_s: float | None = None
    ) -> Machine:
        start_at = top.text("StartAt")
        raw = top.take("States")
        top.end()
        if not isinstance(raw, dict) or not raw:
            raise InvalidDefinition(top.where, "States: a non-empty object is required")
        own = _assigned(raw)
        if shadowed := sorted(own & variables):
            raise InvalidDefinition(
                top.where, f"Assign: {', '.join(shadowed)}: already assigned in an outer scope"
            )
        states: dict[str, State] = {}
        for name, value in raw.items():
            if len(name) > _MAX_NAME:
                raise InvalidDefinition(f"state {name!r}", "Name: over 80 characters")
            if name in self._names:
                raise InvalidDefinition(f"state {name!r}", "Name: used twice in the workflow")
            self._names.add(name)
            states[name] = self._state(name, value, variables=variables | own)
        _check_transitions(top.where, start_at, states)
        return Machine(start_at, states, timeout_s)

    def _state(self, name: str, value: JSON, *, variables: frozenset[str]) -> State:
        fields = _Fields(value, f"state {name!r}")
        kind = fields.text("Type")
        fields.take("Comment")
        if fields.take("QueryLanguage", "JSONata") != "JSONata":
            raise InvalidDefinition(fields.where, "QueryLanguage: only JSONata is supported")
        if kind == "Choice":
            state: State = self._choice(name, fields)
        elif kind == "Fail":
            state = self._fail(name, fields)
        elif kind == "Succeed":
            state = Succeed(name, kind, None, {}, fields.template("Output"), (), ())
        else:
            state = self._flowing(name, kind, fields, variables)
        fields.end()
        return state

    def _flowing(self, name: str, kind: str, fields: _Fields, variables: frozenset[str]) -> State:
        """States that have ``Next`` or ``End``."""
        next_ = _next(fields)
        assign = _assign(fields)
        output = fields.template("Output")
        retry: tuple[Retrier, ...] = ()
        catch: tuple[Catcher, ...] = ()
        if kind in ("Task", "Parallel", "Map"):
            retry = _retriers(fields)
            catch = _catchers(fields)
        common = (name, kind, next_, assign, output, retry, catch)
        if kind == "Pass":
            return Pass(*common)
        if kind == "Wait":
            seconds, until = fields.template("Seconds"), fields.template("Timestamp")
            if (seconds is None) == (until is None):
                raise InvalidDefinition(fields.where, "needs one of Seconds and Timestamp")
            _check_constant(seconds, fields.where, "Seconds", 0)
            return Wait(*common, seconds, until)
        if kind == "Task":
            return self._task(common, fields)
        if kind == "Parallel":
            arguments = fields.template("Arguments")
            branches = tuple(
                self.machine(
                    _branch(branch, f"{fields.where}, branch {index}"), variables=variables
                )
                for index, branch in enumerate(fields.array("Branches"))
            )
            if not branches:
                raise InvalidDefinition(fields.where, "Branches: a non-empty array is required")
            return Parallel(*common, arguments, branches)
        if kind == "Map":
            return self._map(common, fields, variables)
        raise InvalidDefinition(fields.where, f"Type: {kind!r} is unknown")

    @staticmethod
    def _task(common: "_Common", fields: _Fields) -> Task:
        resource = fields.text("Resource")
        if resource not in RESOURCES:
            raise InvalidDefinition(
                fields.where, f"Resource: {resource!r} is not one of {', '.join(RESOURCES)}"
            )
        arguments = fields.take("Arguments")
        if arguments is None:
            raise InvalidDefinition(fields.where, "Arguments: required")
        if isinstance(arguments, dict):
            _check_arguments(resource, arguments, fields.where)
        timeout_s = fields.template("TimeoutSeconds")
        _check_constant(timeout_s, fields.where, "TimeoutSeconds", 1)
        return Task(
            *common,
            resource,
            compile_template(arguments, where=fields.where, field="Arguments"),
            timeout_s,
        )

    def _map(self, common: "_Common", fields: _Fields, variables: frozenset[str]) -> Map:
        where = fields.where
        processor = fields.inner("ItemProcessor")
        if processor is None:
            raise InvalidDefinition(where, "ItemProcessor: required")
        processor.take("Comment")
        config = processor.inner("ProcessorConfig") or _Fields({}, where)
        mode, execution = config.take("Mode", "INLINE"), config.take("ExecutionType")
        config.end()
        if mode not in ("INLINE", "DISTRIBUTED"):
            raise InvalidDefinition(where, f"ProcessorConfig.Mode: {mode!r} is unknown")
        distributed = mode == "DISTRIBUTED"
        if distributed and execution != "STANDARD":
            raise InvalidDefinition(where, "ProcessorConfig.ExecutionType: STANDARD is required")
        if not distributed and execution is not None:
            raise InvalidDefinition(where, "ProcessorConfig.ExecutionType: only for DISTRIBUTED")
        items, selector = fields.template("Items"), fields.template("ItemSelector")
        concurrency = fields.template("MaxConcurrency") or compile_template(
            0, where=where, field="MaxConcurrency"
        )
        _check_constant(concurrency, where, "MaxConcurrency", 0)
        if not distributed:
            for name in (
                "ItemReader",
                "ItemBatcher",
                "ResultWriter",
                "ToleratedFailureCount",
                "ToleratedFailurePercentage",
            ):
                if fields.has(name):
                    raise InvalidDefinition(where, f"{name}: only for Mode DISTRIBUTED")
        reader, batcher, writer = _reader(fields), _batcher(fields), _writer(fields)
        if reader is not None and items is not None:
            raise InvalidDefinition(where, "Items: not together with ItemReader")
        count = fields.template("ToleratedFailureCount")
        percentage = fields.template("ToleratedFailurePercentage")
        _check_constant(count, where, "ToleratedFailureCount", 0)
        _check_constant(percentage, where, "ToleratedFailurePercentage", 0, 100, whole=False)
        # Children of a distributed Map are executions of their own and see no variables.
        inner = frozenset[str]() if distributed else variables
        return Map(
            *common,
            items,
            selector,
            concurrency,
            self.machine(processor, variables=inner),
            distributed,
            reader,
            batcher,
            writer,
            count,
            percentage,
        )

    @staticmethod
    def _choice(name: str, fields: _Fields) -> Choice:
        rules = []
        for index, value in enumerate(fields.array("Choices")):
            rule = _Fields(value, f"{fields.where}, choice {index}")
            rule.take("Comment")
            raw = rule.take("Condition")
            is_expression = isinstance(raw, str) and raw.startswith("{%")
            if not is_expression and not isinstance(raw, bool):
                raise InvalidDefinition(rule.where, "Condition: a JSONata string is required")
            condition = compile_template(raw, where=rule.where, field="Condition")
            rules.append(Rule(condition, rule.text("Next"), _assign(rule), rule.template("Output")))
            rule.end()
        if not rules:
            raise InvalidDefinition(fields.where, "Choices: a non-empty array is required")
        default = fields.text("Default") if fields.has("Default") else None
        for field in ("Assign", "Output"):
            # The guide and the specification differ on whether it counts when a rule matched.
            if fields.has(field):
                raise InvalidDefinition(fields.where, f"{field}: put it in the rules of a Choice")
        return Choice(name, "Choice", default, {}, None, (), (), tuple(rules))

    @staticmethod
    def _fail(name: str, fields: _Fields) -> Fail:
        error = fields.template("Error") or compile_template("", where=fields.where, field="Error")
        cause = fields.template("Cause") or compile_template("", where=fields.where, field="Cause")
        return Fail(name, "Fail", None, {}, None, (), (), error, cause)


_Common: TypeAlias = tuple[
    str,
    str,
    str | None,
    Mapping[str, Template],
    Template | None,
    tuple[Retrier, ...],
    tuple[Catcher, ...],
]


def _next(fields: _Fields) -> str | None:
    end = fields.take("End", False)
    if not isinstance(end, bool):
        raise InvalidDefinition(fields.where, "End: true or false")
    if end == fields.has("Next"):
        raise InvalidDefinition(fields.where, "needs one of Next and End")
    return None if end else fields.text("Next")


def _branch(value: JSON, where: str) -> _Fields:
    fields = _Fields(value, where)
    fields.take("Comment")
    return fields


def _assign(fields: _Fields) -> dict[str, Template]:
    raw = fields.take("Assign", {})
    if not isinstance(raw, dict):
        raise InvalidDefinition(fields.where, "Assign: must be an object")
    for name in raw:
        if name == "states" or not _VARIABLE.fullmatch(name):
            raise InvalidDefinition(fields.where, f"Assign.{name}: not a name for a variable")
    return {
        name: compile_template(value, where=fields.where, field=f"Assign.{name}")
        for name, value in raw.items()
    }


def _retriers(fields: _Fields) -> tuple[Retrier, ...]:
    found = []
    raw = fields.array("Retry")
    for index, value in enumerate(raw):
        one = _Fields(value, f"{fields.where}, Retry {index}")
        one.take("Comment")
        errors = _errors(one, last=index == len(raw) - 1)
        interval = _number(one.take("IntervalSeconds", 1), one.where, "IntervalSeconds", 1)
        attempts = _number(one.take("MaxAttempts", 3), one.where, "MaxAttempts", 0)
        backoff = one.take("BackoffRate", 2.0)
        if isinstance(backoff, bool) or not isinstance(backoff, int | float) or backoff < 1:
            raise InvalidDefinition(one.where, "BackoffRate: a number of at least 1")
        most = one.take("MaxDelaySeconds")
        most_s = None if most is None else _number(most, one.where, "MaxDelaySeconds", 1)
        if most_s is not None and most_s <= interval:
            raise InvalidDefinition(one.where, "MaxDelaySeconds: must be over IntervalSeconds")
        jitter = one.take("JitterStrategy", "NONE")
        if jitter not in ("FULL", "NONE"):
            raise InvalidDefinition(one.where, f"JitterStrategy: {jitter!r} is unknown")
        one.end()
        found.append(
            Retrier(errors, interval, int(attempts), float(backoff), most_s, jitter == "FULL")
        )
    return tuple(found)


def _catchers(fields: _Fields) -> tuple[Catcher, ...]:
    found = []
    raw = fields.array("Catch")
    for index, value in enumerate(raw):
        one = _Fields(value, f"{fields.where}, Catch {index}")
        one.take("Comment")
        errors = _errors(one, last=index == len(raw) - 1)
        found.append(Catcher(errors, one.text("Next"), _assign(one), one.template("Output")))
        one.end()
    return tuple(found)


def _errors(fields: _Fields, *, last: bool) -> tuple[str, ...]:
    names = [name for name in fields.array("ErrorEquals") if isinstance(name, str) and name]
    if not names:
        raise InvalidDefinition(fields.where, "ErrorEquals: a non-empty array of names")
    if "States.ALL" in names and (len(names) > 1 or not last):
        raise InvalidDefinition(fields.where, "ErrorEquals: States.ALL stands alone and last")
    if RUNTIME in names:
        raise InvalidDefinition(fields.where, f"ErrorEquals: {RUNTIME} cannot be handled")
    return tuple(names)


def _reader(fields: _Fields) -> Template | None:
    one = fields.inner("ItemReader")
    if one is None:
        return None
    if one.text("Resource") != GET_OBJECT:
        raise InvalidDefinition(one.where, f"Resource: only {GET_OBJECT}")
    config = one.inner("ReaderConfig")
    if config is None:
        raise InvalidDefinition(one.where, "ReaderConfig: required")
    input_type = config.take("InputType")
    if input_type != "JSONL":
        raise InvalidDefinition(config.where, f"InputType: {input_type!r} is not JSONL")
    config.end()
    arguments = _object_arguments(one, ("Bucket", "Key"))
    one.end()
    return arguments


def _batcher(fields: _Fields) -> Batcher | None:
    one = fields.inner("ItemBatcher")
    if one is None:
        return None
    items = one.template("MaxItemsPerBatch")
    if items is None:
        raise InvalidDefinition(one.where, "MaxItemsPerBatch: required")
    _check_constant(items, one.where, "MaxItemsPerBatch", 1)
    found = Batcher(items, one.template("BatchInput"))
    one.end()
    return found


def _writer(fields: _Fields) -> Template | None:
    one = fields.inner("ResultWriter")
    if one is None:
        return None
    if one.text("Resource") != PUT_OBJECT:
        raise InvalidDefinition(one.where, f"Resource: only {PUT_OBJECT}")
    arguments = _object_arguments(one, ("Bucket", "Prefix"))
    one.end()
    return arguments


def _object_arguments(fields: _Fields, names: tuple[str, ...]) -> Template:
    raw = fields.take("Arguments")
    if isinstance(raw, dict) and set(raw) != set(names):
        raise InvalidDefinition(fields.where, f"Arguments: exactly {' and '.join(names)}")
    if raw is None:
        raise InvalidDefinition(fields.where, "Arguments: required")
    return compile_template(raw, where=fields.where, field="Arguments")


def _check_arguments(resource: str, arguments: Mapping[str, JSON], where: str) -> None:
    if resource == BATCH_SYNC:
        required = {"JobName", "JobQueue", "JobDefinition"}
    else:
        required = {"FunctionName"}
        if unknown := sorted(set(arguments) - _LAMBDA_ARGUMENTS):
            raise InvalidDefinition(where, f"Arguments.{unknown[0]}: unsupported")
    if missing := sorted(required - set(arguments)):
        raise InvalidDefinition(where, f"Arguments.{missing[0]}: required")


def _check_constant(
    template: Template | None,
    where: str,
    field: str,
    least: int,
    most: int = _MAX_SECONDS,
    *,
    whole: bool = True,
) -> None:
    """Check a numeric field now when it is no expression."""
    value = None if template is None else constant(template)
    if value is not None:
        _number(value[0], where, field, least, most, whole=whole)


def _number(
    value: JSON,
    where: str,
    field: str,
    least: int,
    most: int = _MAX_SECONDS,
    *,
    whole: bool = True,
) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= most
        or (whole and value != int(value))
    ):
        kind = "whole number" if whole else "number"
        raise InvalidDefinition(where, f"{field}: a {kind} from {least} to {most}")
    return float(value)


def _assigned(states: Mapping[str, JSON]) -> frozenset[str]:
    """Names that the states of one scope assign, their catchers and rules included."""
    names: set[str] = set()
    for state in states.values():
        if not isinstance(state, dict):
            continue
        holders: list[JSON] = [state]
        for field in ("Catch", "Choices"):
            value = state.get(field)
            if isinstance(value, list):
                holders.extend(value)
        for holder in holders:
            if isinstance(holder, dict) and isinstance(assign := holder.get("Assign"), dict):
                names.update(assign)
    return frozenset(names)


def _targets(state: State) -> Iterator[str]:
    if state.next is not None:
        yield state.next
    for catcher in state.catch:
        yield catcher.next
    if isinstance(state, Choice):
        for rule in state.rules:
            yield rule.next


def _check_transitions(where: str, start_at: str, states: Mapping[str, State]) -> None:
    if start_at not in states:
        raise InvalidDefinition(where, f"StartAt: no state {start_at!r}")
    reached: set[str] = set()
    pending = [start_at]
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        for target in _targets(states[name]):
            if target not in states:
                raise InvalidDefinition(f"state {name!r}", f"Next: no state {target!r} here")
            pending.append(target)
    if lost := sorted(set(states) - reached):
        raise InvalidDefinition(where, f"States: nothing leads to {', '.join(lost)}")
    ends = (s for s in states.values() if not isinstance(s, Choice) and s.next is None)
    if next(ends, None) is None:
        raise InvalidDefinition(where, "States: no state ends the workflow")


def _fill(value: JSON, substitutions: Mapping[str, str]) -> JSON:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: substitutions[match[1]], value)
    if isinstance(value, list):
        return [_fill(item, substitutions) for item in value]
    if isinstance(value, dict):
        return {
            _PLACEHOLDER.sub(lambda match: substitutions[match[1]], name): _fill(
                item, substitutions
            )
            for name, item in value.items()
        }
    return value


def _no_duplicates(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the field {name!r} is given twice")
    return dict(pairs)
