"""How a stand-in puts an operation of its own behind moto's HTTP endpoint."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import botocore.session
from botocore.validate import ParamValidator
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult

Operation = Callable[[dict[str, Any]], dict[str, Any]]

_models = botocore.session.Session()


def _one_at_a_time(
    process: Callable[[BotocoreStubber, Any], Any],
) -> Callable[[BotocoreStubber, Any], Any]:
    """Threads call AWS at once, whose writes are atomic; moto's state and ours are plain dicts."""
    lock = threading.RLock()

    def processed(stubber: BotocoreStubber, request: Any) -> Any:
        with lock:
            return process(stubber, request)

    return processed


BotocoreStubber.process_request = _one_at_a_time(  # type: ignore[method-assign]
    BotocoreStubber.process_request
)


class AwsError(ServiceException):
    """An error that the service answers with: ``AwsError("ThrottlingException", "slow down")``."""


def check_answer(service: str, operation: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Fail unless the answer is one that this operation could give, with no unknown member."""
    shape = _models.get_service_model(service).operation_model(operation).output_shape
    if shape is None:
        assert not answer, f"{service} {operation} answers nothing, not {answer}"
        return answer
    report = ParamValidator().validate(answer, shape)
    assert not report.has_errors(), f"{service} {operation}: {report.generate_report()}"
    unknown = set(answer) - set(shape.members)
    assert not unknown, f"{service} {operation} has no {unknown}"
    return answer


@contextmanager
def served(
    response_class: type[Any],
    service: str,
    operations: Mapping[str, Operation],
    *,
    routes: dict[str, Any] | None = None,
    route: str = "",
) -> Iterator[None]:
    """Let moto's ``response_class`` answer these operations (by their API name).

    Args:
        response_class: moto's class for the service.
        service: botocore's name of the service.
        operations: API name → function of the request's parameters; it may raise AwsError.
        routes: moto's table of URL patterns, for operations that it does not know.
        route: pattern of one operation with ``{name}`` in place of the name.
    """
    with ExitStack() as stack:
        for name, operation in operations.items():
            method = _method(service, name, operation)
            stack.enter_context(patch.object(response_class, _snake(name), method, create=True))
            if routes is not None:
                pattern = "{0}" + route.replace("{name}", name) + "$"
                stack.enter_context(patch.dict(routes, {pattern: response_class.dispatch}))
        yield


def _method(service: str, name: str, operation: Operation) -> Callable[[Any], ActionResult]:
    def method(response: Any) -> ActionResult:
        response.parse_parameters(response.normalized_request)
        params = response.params
        if hasattr(params, "original_dict"):
            params = params.original_dict()
        return ActionResult(check_answer(service, name, operation(dict(params))))

    return method


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
