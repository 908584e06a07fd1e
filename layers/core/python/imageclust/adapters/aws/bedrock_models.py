"""Whether a Bedrock model can be used here, asked before a run pays for anything."""

from datetime import UTC, datetime

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.errors import InvalidInput, UnknownModel
from imageclust.settings import PROFILE_SCOPES


def check_model(clients: Clients, model_id: str) -> tuple[str, ...]:
    """Notes on the model's life: empty, or that its end is near.

    Both questions are free. What the account has agreed to with a model's seller is not looked
    at: Bedrock signs it at the first call.

    Args:
        clients: the AWS clients.
        model_id: a model, or an inference profile named by its scope (``us.``, ``global.`` …).

    Raises:
        UnknownModel: the region has no such model, its life is over, or it is not open to this
            account; the message says what to do.
        Retryable: Bedrock did not answer.
    """
    model = _behind(model_id)
    what = f"Bedrock model {model_id}"
    try:
        with translated(what, refused={"ValidationException"}):
            found = clients.bedrock.get_foundation_model(modelIdentifier=model)
            access = clients.bedrock.get_foundation_model_availability(modelId=model)
    except InvalidInput as error:
        raise UnknownModel(
            f"The Bedrock model {model_id} does not exist in this region: choose another model, "
            f"or deploy to a region that has it. {error}"
        ) from error
    life = found["modelDetails"].get("modelLifecycle", {})
    end = life.get("endOfLifeTime")
    if end is not None and end <= datetime.now(UTC):
        raise UnknownModel(
            f"The Bedrock model {model_id} was withdrawn on {end:%Y-%m-%d}: choose another model."
        )
    if access["regionAvailability"] != "AVAILABLE":
        raise UnknownModel(
            f"The Bedrock model {model_id} is not offered in this region: choose another model, "
            f"or deploy to a region that has it."
        )
    if (access["authorizationStatus"], access["entitlementAvailability"]) != (
        "AUTHORIZED",
        "AVAILABLE",
    ):
        raise UnknownModel(
            f"The Bedrock model {model_id} is not open to this account here: ask for access to it "
            f"in the Bedrock console of this region, or choose another model."
        )
    if life.get("status") == "LEGACY":
        until = f"will be withdrawn on {end:%Y-%m-%d}" if end else "is going out of use"
        return (f"the Bedrock model {model_id} {until}: plan for another",)
    return ()


def model_sees(clients: Clients, model_id: str) -> bool:
    """Whether the model takes pictures. Raises NotFound, Retryable, Permanent."""
    with translated(f"Bedrock model {model_id}"):
        found = clients.bedrock.get_foundation_model(modelIdentifier=_behind(model_id))
    return "IMAGE" in found["modelDetails"].get("inputModalities", [])


def _behind(model_id: str) -> str:
    """The model itself, also where the id is that of a cross-region inference profile."""
    scope, _, rest = model_id.partition(".")
    return rest if scope in PROFILE_SCOPES else model_id
