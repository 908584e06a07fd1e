"""A progress bar for each stage of a run, on the terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Never, Self, TextIO

from local.runner import Event

if TYPE_CHECKING:
    from tqdm import tqdm

_STAGES = {
    "PlanRun": "Plan",
    "EmbedWithLambda": "Embed",
    "EmbedOnGpu": "Embed",
    "LabelImages": "Label",
    "ClusterImages": "Cluster",
    "DrawMap": "Map",
    "DescribeClusters": "Describe",
    "DescribeInBatch": "Describe",
    "PublishRun": "Publish",
}


class Progress:
    """Draws bars from the workflow's events. Distributed Maps count images, other states one.

    Where nobody watches (a file, a pipe) each stage is one line when it ends.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._watched = stream.isatty()
        self._bars: dict[str, tqdm[Never]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for bar in self._bars.values():
            bar.close()

    def tell(self, _run_id: str, event: Event) -> None:
        """Take one event; only the stages that people wait for are drawn."""
        stage = _STAGES.get(event.state)
        if stage is None or event.child is not None:
            return
        if not self._watched:
            if event.kind == "exited":
                print(f"{stage:<9} {event.seconds:.1f} s", file=self._stream)
            return
        if event.kind == "entered" and stage not in self._bars:
            from tqdm import tqdm  # where somebody watches

            bar: tqdm[Never] = tqdm(
                desc=f"{stage:<9}",
                total=None if event.type == "Map" else 1,
                position=len(self._bars),
                file=self._stream,
                bar_format="{desc}{bar:30} {n_fmt}/{total_fmt} [{elapsed}]",
                dynamic_ncols=True,
            )
            self._bars[stage] = bar
        if stage not in self._bars:
            return
        bar = self._bars[stage]
        if event.kind == "progress":
            bar.total = event.total
            bar.n = event.done
            bar.refresh()
        elif event.kind == "exited" and event.type != "Map":
            bar.n = bar.total = 1
            bar.refresh()
