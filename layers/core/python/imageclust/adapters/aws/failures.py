"""AWS's errors as classes of ``imageclust.errors``."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004
    HTTPClientError,
    ParamValidationError,
)

from imageclust.errors import (
    Conflict,
    ImageclustError,
    InvalidInput,
    NotFound,
    Permanent,
    StoreUnavailable,
    Throttled,
)

_THROTTLED = {
    "BandwidthLimitExceeded",
    "KmsThrottlingException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_UNAVAILABLE = {
    "InternalError",
    "InternalException",
    "InternalServerError",
    "InternalServerException",
    "ModelErrorException",
    "ModelNotReadyException",
    "ModelTimeoutException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}
_MISSING = {
    "404",
    "ExecutionDoesNotExist",
    "InvalidToken",
    "NoSuchBucket",
    "NoSuchKey",
    "NotFound",
    "NotFoundException",
    "ResourceNotFoundException",
    "StateMachineDoesNotExist",
    "TaskDoesNotExist",
    "TaskTimedOut",
}
_CONFLICT = {
    "ConditionalCheckFailedException",
    "ConflictException",
    "ExecutionAlreadyExists",
    "PreconditionFailed",
}
_USERS = {
    "InvalidObjectState": "it is archived and must be restored first",
    "KeyTooLongError": "its name is too long for S3",
}


@contextmanager
def translated(
    what: str, *, refused: Collection[str] = (), invalid: type[ImageclustError] = Permanent
) -> Iterator[None]:
    """Raise our own class for any error of botocore.

    Args:
        what: names the thing at hand, for the message.
        refused: error codes that mean that this one input is bad: InvalidInput.
        invalid: class of a ValidationException; pass InvalidInput where the user chose the value.
    """
    try:
        yield
    except ClientError as error:
        found = failure(error, what)
        if code_of(error) in refused:
            found = InvalidInput(str(found))
        elif code_of(error) == "ValidationException":
            found = invalid(str(found))
        raise found from error
    except (ConnectionError, HTTPClientError) as error:
        raise StoreUnavailable(f"{what}: AWS did not answer ({type(error).__name__}).") from error
    except ParamValidationError as error:
        raise InvalidInput(f"{what}: {error}") from error
    except BotoCoreError as error:
        raise Permanent(f"{what}: {error}") from error


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def failure(error: ClientError, what: str) -> ImageclustError:
    """The error of our tree for one of AWS's."""
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = f"{what}: {error.response.get('Error', {}).get('Message', '') or code} ({code})"
    if code in _THROTTLED:
        return Throttled(message)
    if code in _UNAVAILABLE or status >= 500:
        return StoreUnavailable(message)
    if code in _MISSING:
        return NotFound(message)
    if code in _CONFLICT:
        return Conflict(message)
    if code in _USERS:
        return InvalidInput(f"{what} cannot be used: {_USERS[code]}.")
    return Permanent(message)
