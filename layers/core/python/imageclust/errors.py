"""Every failure a user can meet, as one tree.

::

    ImageclustError
    ├── InvalidInput            the user can mend it; the message says how
    │   ├── RejectedImage       one file cannot become an image (kind + reason); never fails a run
    │   ├── InfeasibleBounds    no clustering meets the size bounds; states the feasible range
    │   ├── OverBudget              the cheapest form of the run costs more than max_cost_usd
    │   ├── UnknownModel        no such embedder or labeler; lists the known ones
    │   └── NotFound            no such collection, run, cluster or image
    ├── Retryable               try the same call again, later
    │   ├── Throttled           a service asked us to slow down
    │   └── StoreUnavailable    the store did not answer or could not write just now
    └── Permanent               trying again will not help and the input is not at fault
        ├── Conflict            a conditional write lost to another writer
        │   └── AlreadyRunning  the collection has a run under way; names it
        ├── CorruptData         something we stored does not read back
        └── LawBroken           images seen ≠ clustered + outliers + duplicates + rejected

``statemachine/cluster_images.asl.json`` retries only ``Retryable`` classes and service errors,
by class name; a test compares the names.
"""


class ImageclustError(Exception):
    """Root of every error that the project raises on purpose."""


class InvalidInput(ImageclustError):
    """The input or configuration is at fault; the message is for the user."""


class RejectedImage(InvalidInput):
    """One file cannot become an image.

    Args:
        kind: one word for counting: ``not-an-image``, ``unsupported``, ``truncated``, ``corrupt``,
            ``too-large``, ``empty``, ``unreadable``, ``crashed`` or ``timeout``.
        reason: one sentence for the user.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason

    def __reduce__(self) -> tuple[type["RejectedImage"], tuple[str, str]]:
        return (type(self), (self.kind, self.reason))


class InfeasibleBounds(InvalidInput):
    """No clustering of this many images meets the bounds; the message states what would."""


class OverBudget(InvalidInput):
    """Even the cheapest form of the run costs more than its cap; the message states both."""


class UnknownModel(InvalidInput):
    """No embedder, labeler or describer has this name; the message lists the known ones."""


class NotFound(InvalidInput):
    """The named collection, run, cluster or image does not exist."""


class Retryable(ImageclustError):
    """The same call may succeed later."""


class Throttled(Retryable):
    """A service asked us to slow down."""


class StoreUnavailable(Retryable):
    """A store did not answer, or could not write just now."""


class Permanent(ImageclustError):
    """Trying again will not help, and the input is not at fault."""


class Conflict(Permanent):
    """A conditional write lost to another writer."""


class AlreadyRunning(Conflict):
    """The collection has a run under way; one at a time."""

    def __init__(self, collection: str, run_id: str) -> None:
        super().__init__(
            f"A run of '{collection}' is under way: {run_id}. Wait until it ends, or cancel it."
        )
        self.collection = collection
        self.run_id = run_id

    def __reduce__(self) -> tuple[type["AlreadyRunning"], tuple[str, str]]:
        return (type(self), (self.collection, self.run_id))


class CorruptData(Permanent):
    """Something that was stored does not read back as written."""


class LawBroken(Permanent):
    """Images seen differ from clustered + outliers + duplicates + rejected."""
