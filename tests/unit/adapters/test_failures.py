from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from imageclust.adapters.aws.failures import translated
from imageclust.errors import (
    Conflict,
    ImageclustError,
    InvalidInput,
    NotFound,
    Permanent,
    StoreUnavailable,
    Throttled,
)


def client_error(code: str, status: int = 400) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": "told"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "Operation")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("ThrottlingException"), Throttled),
        (client_error("ProvisionedThroughputExceededException"), Throttled),
        (client_error("SlowDown", 503), Throttled),
        (client_error("TooManyRequestsException", 429), Throttled),
        (client_error("InternalServerError", 500), StoreUnavailable),
        (client_error("Whatever", 502), StoreUnavailable),
        (client_error("ModelTimeoutException", 408), StoreUnavailable),
        (client_error("NoSuchKey", 404), NotFound),
        (client_error("404", 404), NotFound),
        (client_error("ResourceNotFoundException"), NotFound),
        (client_error("ConditionalCheckFailedException"), Conflict),
        (client_error("InvalidObjectState", 403), InvalidInput),
        (client_error("AccessDeniedException", 403), Permanent),
        (client_error("ValidationException"), Permanent),
        (client_error("ServiceQuotaExceededException"), Permanent),
        (EndpointConnectionError(endpoint_url="x"), StoreUnavailable),
        (ReadTimeoutError(endpoint_url="x"), StoreUnavailable),
        (ResponseStreamingError(error="x"), StoreUnavailable),
        (NoCredentialsError(), Permanent),
    ],
)
def test_each_error_of_aws_has_a_class(error: Exception, kind: type[ImageclustError]) -> None:
    with pytest.raises(ImageclustError, match="The thing") as caught, translated("The thing"):
        raise error
    assert type(caught.value) is kind


def test_errors_that_the_user_can_mend() -> None:
    with pytest.raises(InvalidInput), translated("x", invalid=InvalidInput):
        raise client_error("ValidationException")
    with pytest.raises(InvalidInput), translated("x", refused={"ImageTooLargeException"}):
        raise client_error("ImageTooLargeException")


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), translated("x"):
        raise ZeroDivisionError
