"""JSONata in workflow files: compiled once, evaluated by many threads.

A string ``{% … %}`` is an expression; it may stand for a whole field or anywhere inside an object
or array. ``jsonata-python`` does the work. Around it this module adds what Step Functions adds:
``$partition``, ``$range``, ``$hash``, ``$random`` with a seed, ``$uuid`` and ``$parse``; no
``$eval``; and ``States.QueryEvaluationError`` for any failure or undefined result.

Source: AWS Step Functions developer guide, "Transforming data with JSONata".
"""

import copy
import hashlib
import json
import math
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from jsonata.jexception import JException
from jsonata.jsonata import Jsonata
from jsonata.utils import Utils

from .errors import QUERY, InvalidDefinition, StateError
from .values import JSON

# A plain path into a variable, the most common expression: $states.input.run_id
_PLAIN_PATH = re.compile(r"\$([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)*)", re.ASCII)
# Names that end a path or mean something else in JSONata.
_NOT_FIELDS = frozenset({"and", "or", "in", "null", "true", "false", "function"})
_MISSING = object()
_HASHES = {
    "MD5": hashlib.md5,
    "SHA-1": hashlib.sha1,
    "SHA-256": hashlib.sha256,
    "SHA-384": hashlib.sha384,
    "SHA-512": hashlib.sha512,
}
_MAX_RANGE = 1_000
# An expression that calls its own functions may never end.
_EVALUATION_S = 5.0

# What the library raises for a bad expression or bad data: its own exception, and Python's where
# it does not check (a missing argument, a division by zero, endless recursion).
_EVALUATION_ERRORS = (
    JException,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

Bindings = Mapping[str, Any]


class Template(Protocol):
    """A field of a state that may hold expressions."""

    def evaluate(self, bindings: Bindings) -> JSON:
        """Plain JSON; raises ``States.QueryEvaluationError``."""
        ...


@dataclass(frozen=True, slots=True)
class _Constant:
    value: JSON

    def evaluate(self, bindings: Bindings) -> JSON:  # noqa: ARG002 - a constant needs none
        return self.value


@dataclass(frozen=True, slots=True)
class _Object:
    fields: tuple[tuple[str, Template], ...]

    def evaluate(self, bindings: Bindings) -> JSON:
        return {name: field.evaluate(bindings) for name, field in self.fields}


@dataclass(frozen=True, slots=True)
class _Array:
    items: tuple[Template, ...]

    def evaluate(self, bindings: Bindings) -> JSON:
        return [item.evaluate(bindings) for item in self.items]


class _Expression:
    """One ``{% … %}``."""

    def __init__(self, source: str, where: str, field: str) -> None:
        self._source = source
        self._where = where
        self._field = field
        try:
            self._compiled = _compile(source)
        except ValueError as error:
            raise InvalidDefinition(where, f"{field}: {error}") from None
        self._path = _plain_path(source)
        self._may_loop = "function" in source or "λ" in source

    def evaluate(self, bindings: Bindings) -> JSON:
        if self._path is not None:
            value = _follow(self._path, bindings)
            if value is not _MISSING:
                return value  # type: ignore[no-any-return]  # bindings hold plain JSON
        # The library keeps the clock and the context of a call on the expression that was first
        # used on the thread. A copy of its own for each call keeps both right.
        call = copy.copy(self._compiled)
        Jsonata.CURRENT.jsonata = call
        bound = _with_nulls(bindings)
        if self._may_loop:
            bound["__evaluate_entry"] = _deadline()
        try:
            found = call.evaluate(None, bound)
            if found is None:
                raise self._failed("it returned nothing (undefined)")
            return _plain(found)
        except _EVALUATION_ERRORS as error:
            raise self._failed(str(error) or type(error).__name__) from error

    def _failed(self, reason: str) -> StateError:
        return StateError(
            QUERY,
            f"The JSONata expression '{self._source}' of the field '{self._field}' of "
            f"{self._where} failed: {reason}",
        )


@cache
def _compile(source: str) -> Jsonata:
    """An expression, ready to be copied for each call; workflows say the same thing often.

    Raises ValueError for what does not parse or Step Functions refuses.
    """
    try:
        compiled = Jsonata(source)
    except _EVALUATION_ERRORS as error:
        raise ValueError(f"not JSONata: {source!r}: {error}") from None
    if compiled.errors:
        raise ValueError(f"not JSONata: {source!r}")
    if "eval" in source and "eval" in _variables(compiled.ast):
        raise ValueError("$eval does not exist in Step Functions")
    compiled.set_validate_input(False)
    # Null and undefined must stay apart: null is a value, undefined an error.
    compiled.set_output_convert_nulls(False)
    for name, function in _FUNCTIONS.items():
        compiled.register_lambda(name, function)
    return compiled


def compile_template(value: JSON, *, where: str, field: str) -> Template:
    """Compile a field.

    Args:
        value: JSON from the workflow file.
        where: the state, for messages.
        field: the field, for messages.

    Raises:
        InvalidDefinition: an expression that does not parse or that Step Functions refuses.
    """
    if isinstance(value, str):
        opens, closes = value.startswith("{%"), value.endswith("%}")
        if opens and closes and len(value) >= 4:
            return _Expression(value[2:-2].strip(), where, field)
        if opens or closes:
            raise InvalidDefinition(
                where, f"{field}: a JSONata string starts with '{{%' and ends with '%}}': {value!r}"
            )
        return _Constant(value)
    if isinstance(value, dict):
        for name in value:
            if name.endswith(".$"):
                raise InvalidDefinition(where, f"{field}.{name}: JSONPath is not supported")
        fields = tuple(
            (name, compile_template(item, where=where, field=f"{field}.{name}"))
            for name, item in value.items()
        )
        if all(isinstance(item, _Constant) for _, item in fields):
            return _Constant(value)
        return _Object(fields)
    if isinstance(value, list):
        items = tuple(
            compile_template(item, where=where, field=f"{field}[{index}]")
            for index, item in enumerate(value)
        )
        if all(isinstance(item, _Constant) for item in items):
            return _Constant(value)
        return _Array(items)
    return _Constant(value)


def constant(template: Template) -> tuple[JSON] | None:
    """The value of a field without expressions, in a tuple; ``None`` for any other."""
    return (template.value,) if isinstance(template, _Constant) else None


def _plain_path(source: str) -> tuple[str, ...] | None:
    match = _PLAIN_PATH.fullmatch(source)
    if match is None:
        return None
    path = (match[1], *match[2].split(".")[1:])
    return None if _NOT_FIELDS.intersection(path) else path


def _follow(path: tuple[str, ...], bindings: Bindings) -> Any:
    """The value at a path through objects only; ``_MISSING`` where JSONata has more to say."""
    value: Any = bindings
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _deadline() -> Callable[..., None]:
    """The library calls this before each step of an evaluation."""
    end = time.monotonic() + _EVALUATION_S

    def check(*_: Any) -> None:
        if time.monotonic() > end:
            raise ValueError(f"it ran over {_EVALUATION_S:g} seconds")

    return check


def _with_nulls(bindings: Bindings) -> dict[str, Any]:
    """A variable that holds null is null, not unbound."""
    return {name: Utils.NULL_VALUE if value is None else value for name, value in bindings.items()}


def _plain(value: Any) -> JSON:
    """A copy of a result in plain JSON types; shares nothing with what it was made from."""
    if value is Utils.NULL_VALUE or value is None:
        return None
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is not finite")
        return value
    if isinstance(value, dict):
        return {_key(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        # By index: the iterator of the library's lazy ranges stops one short.
        return [_plain(value[index]) for index in range(len(value))]
    raise TypeError("the result is a function, not data")


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("an object has a key that is not a string")
    return name


def _variables(node: Any) -> set[str]:
    """Names of all variables in a parsed expression."""
    found: set[str] = set()
    seen: set[int] = set()
    pending = [node]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, list | tuple):
            pending.extend(item)
        elif isinstance(item, dict):
            pending.extend(item.values())
        elif hasattr(item, "type") and hasattr(item, "value") and hasattr(item, "__dict__"):
            if item.type == "variable" and isinstance(item.value, str):
                found.add(item.value)
            pending.extend(_parts(item))
    return found


def _parts(symbol: Any) -> Iterator[Any]:
    # Symbols are made by an inner class of the parser and point back to it.
    return (value for name, value in vars(symbol).items() if not name.startswith("outer"))


# The functions that Step Functions adds. A missing value (undefined) arrives as None.


def _partition(array: Any, count: Any) -> list[Any]:
    _need(isinstance(array, list), "$partition: the first argument is an array")
    _need(_whole(count) and count > 0, "$partition: the second argument is a positive integer")
    items = [array[index] for index in range(len(array))]
    return [items[start : start + int(count)] for start in range(0, len(items), int(count))]


def _range(first: Any, last: Any, step: Any) -> list[int]:
    _need(_whole(first) and _whole(last) and _whole(step), "$range: the arguments are integers")
    _need(step != 0, "$range: the step is not zero")
    first, last, step = int(first), int(last), int(step)
    found = range(first, last + (1 if step > 0 else -1), step)
    _need(len(found) <= _MAX_RANGE, f"$range: at most {_MAX_RANGE} values")
    return list(found)


def _hash(content: Any, algorithm: Any) -> str:
    _need(content is not None, "$hash: the first argument is missing")
    _need(algorithm in _HASHES, f"$hash: the algorithm is one of {', '.join(_HASHES)}")
    text = (
        content if isinstance(content, str) else json.dumps(_plain(content), separators=(",", ":"))
    )
    return _HASHES[algorithm](text.encode("utf-8", "surrogatepass")).hexdigest()


def _random(seed: Any = None) -> float:
    _need(seed is None or _whole(seed), "$random: the seed is an integer")
    return random.random() if seed is None else random.Random(int(seed)).random()  # noqa: S311


def _uuid() -> str:
    return str(uuid.uuid4())


def _parse(text: Any) -> Any:
    _need(isinstance(text, str), "$parse: the argument is a string of JSON")
    value = json.loads(text)
    return Utils.NULL_VALUE if value is None else value


def _whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "partition": _partition,
    "range": _range,
    "hash": _hash,
    "random": _random,
    "uuid": _uuid,
    "parse": _parse,
}
