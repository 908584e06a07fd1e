"""Names without a language model: always there, the same every time, no network."""

from collections.abc import Sequence

from imageclust.models import ClusterBrief, ClusterName

TITLE_LENGTH = 25
PHRASE_LENGTH = 100
DESCRIPTION_LENGTH = 400


class DeterministicDescriber:
    """Names clusters after their telling labels, or after what can be seen without labels."""

    key = "deterministic-1"

    def describe(self, briefs: Sequence[ClusterBrief]) -> list[ClusterName]:
        """One name a brief, in order; titles are unique within the call."""
        taken: set[str] = set()
        names = []
        for brief in briefs:
            facts = brief.labels or brief.attributes
            words = [name for name, _, _ in facts] or ["Pictures"]
            title = _free_title(words, taken)
            taken.add(title)
            names.append(
                ClusterName(
                    title=title,
                    phrase=_phrase(brief, words),
                    description=_description(brief),
                    model=self.key,
                )
            )
        return names


def _free_title(words: Sequence[str], taken: set[str]) -> str:
    candidates = [f"{words[0]} and {word.lower()}" for word in words[1:4]]
    candidates += list(words[:4])
    for candidate in candidates:
        if len(candidate) <= TITLE_LENGTH and candidate not in taken:
            return candidate
    stem = words[0][: TITLE_LENGTH - 5].rstrip()
    number = 2
    while f"{stem} {number}" in taken:
        number += 1
    return f"{stem} {number}"


def _phrase(brief: ClusterBrief, words: Sequence[str]) -> str:
    text = f"{brief.size} pictures: {', '.join(word.lower() for word in words[:5])}"
    return text if brief.size != 1 else text.replace("pictures", "picture", 1)


def _description(brief: ClusterBrief) -> str:
    parts = []
    if brief.labels:
        shown = ", ".join(f"{name.lower()} ({share:.0%})" for name, share, _ in brief.labels[:5])
        parts.append(f"Most often labelled {shown}.")
    if brief.attributes:
        seen = ", ".join(name.lower() for name, _, _ in brief.attributes[:4])
        parts.append(f"Looks: {seen}.")
    return " ".join(parts)[:DESCRIPTION_LENGTH] or "Nothing sets these pictures apart in words."
