"""What a Map works through and how much of it may fail."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .definition import Map
from .errors import QUERY, StateError
from .items import Batch, batches
from .values import JSON
from .visits import Visit, limit_of, number_or


@dataclass(slots=True)
class Progress:
    """Items of a Map: how many are done, how many of those failed, how many there are."""

    total: int
    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many items of a distributed Map may fail; ``None`` where the file sets no limit."""

    count: float | None
    percentage: float | None

    @classmethod
    def of(cls, state: Map, visit: Visit) -> "Tolerance":
        """The limits of a Map, its expressions evaluated."""
        return cls(
            limit_of(state.tolerated_count, visit, "ToleratedFailureCount"),
            limit_of(
                state.tolerated_percentage,
                visit,
                "ToleratedFailurePercentage",
                most=100,
                whole=False,
            ),
        )

    def exceeded(self, progress: Progress) -> bool:
        """Whether too many items have failed."""
        if self.count is None and self.percentage is None:
            return progress.failed > 0
        over_count = self.count is not None and progress.failed > self.count
        share = None if self.percentage is None else self.percentage * progress.total
        return over_count or (share is not None and progress.failed * 100 > share)


def items_of(state: Map, visit: Visit) -> list[JSON]:
    """``Items`` of a Map, or else its input."""
    value = visit.input if state.items is None else state.items.evaluate(visit.bindings())
    if not isinstance(value, list):
        raise StateError(QUERY, f"the items of state '{visit.name}' are not an array")
    return value


def selected(state: Map, visit: Visit, items: Iterable[JSON]) -> Iterator[JSON]:
    """What ``ItemSelector`` makes of the items."""
    if state.selector is None:
        yield from items
        return
    for index, item in enumerate(items):
        bindings = replace(visit, context=with_item(visit.context, index, item)).bindings()
        yield state.selector.evaluate(bindings)


def batched(state: Map, visit: Visit, items: Iterable[JSON]) -> Iterator[Batch]:
    """The inputs of the children of a distributed Map."""
    batcher = state.batcher
    if batcher is None:
        return (Batch(index, item, 1) for index, item in enumerate(items))
    most = number_or(batcher.items, visit, "MaxItemsPerBatch", 1)
    return batches(
        items,
        most_items=int(most),
        batch_input=(
            None if batcher.input is None else (batcher.input.evaluate(visit.bindings()),)
        ),
    )


def with_item(context: dict[str, JSON], index: int, item: JSON) -> dict[str, JSON]:
    """A context object with ``Map.Item``."""
    return {**context, "Map": {"Item": {"Index": index, "Value": item}}}
