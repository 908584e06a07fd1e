"""Several describers for one run: every answer is kept with its model, one of them is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from imageclust.descriptions.prompts import distinct_titles
from imageclust.errors import InvalidInput
from imageclust.models import JSON, ClusterBrief, ClusterName


@dataclass(frozen=True)
class ClusterNames:
    """What a cluster is called: the name that is shown, and every describer's own answer."""

    cluster_id: str
    shown: ClusterName
    answers: tuple[ClusterName, ...]

    def to_json(self) -> JSON:
        return {
            "cluster_id": self.cluster_id,
            "name": self.shown.to_json(),
            "answers": [answer.to_json() for answer in self.answers],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            cluster_id=str(data["cluster_id"]),
            shown=ClusterName.from_json(data["name"]),
            answers=tuple(ClusterName.from_json(answer) for answer in data["answers"]),
        )


def merge_names(
    briefs: Sequence[ClusterBrief],
    answers: Mapping[str, Mapping[str, ClusterName]],
    *,
    descriptions_by: str | None = None,
) -> list[ClusterNames]:
    """The names of every cluster, in the order of the briefs; shown titles are unique.

    Args:
        briefs: one a cluster.
        answers: describer → cluster id → name, the describer to show first; a describer may lack
            clusters, whose names then come from the next one.
        descriptions_by: the describer whose phrases and descriptions are shown under the titles
            of the first, where it has one (a fast model for titles, a larger one for text).

    Raises InvalidInput when nobody named a cluster or ``descriptions_by`` is not among them.
    """
    if descriptions_by is not None and descriptions_by not in answers:
        raise InvalidInput(f"'{descriptions_by}' is not among the describers of this run")
    kept: list[tuple[ClusterName, ...]] = []
    shown: list[ClusterName] = []
    for brief in briefs:
        found = tuple(
            names[brief.cluster_id] for names in answers.values() if brief.cluster_id in names
        )
        if not found:
            raise InvalidInput(f"no describer named the cluster {brief.cluster_id}")
        text = answers.get(descriptions_by or "", {}).get(brief.cluster_id)
        kept.append(found)
        shown.append(_with_text(found[0], text) if text else found[0])
    return [
        ClusterNames(brief.cluster_id, name, found)
        for brief, name, found in zip(briefs, distinct_titles(shown, briefs), kept, strict=True)
    ]


def _with_text(title: ClusterName, text: ClusterName) -> ClusterName:
    if text.model == title.model:
        return title
    return replace(
        title,
        phrase=text.phrase,
        description=text.description,
        model=f"{title.model}; text by {text.model}",
    )
