"""Names without a language model: always there, the same every time, no network.

A title is the most telling label, or the parent that covers the cluster where its labels scatter,
or two labels that do not say the same; without labels that tell, it says how the pictures look.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from imageclust.descriptions.looks import (
    colour_shares,
    look_modifiers,
    look_titles,
    look_touches,
    look_words,
)
from imageclust.descriptions.prompts import (
    DESCRIPTION_LENGTH,
    PHRASE_LENGTH,
    TITLE_LENGTH,
    numbered,
    tame,
)
from imageclust.descriptions.words import (
    countable,
    counted,
    in_sentence,
    listed,
    plural,
    sentence_case,
    share_in_words,
)
from imageclust.models import ClusterBrief, ClusterName

# Weights are class-based TF-IDF over its maximum (in every picture here and in no other group).
# Looked for on caltech45, houses_rooms, clothing10, aws_rooms and drawn pictures: below it labels
# of MobileNetV2 were more often wrong than right.
_LEAST_WEIGHT = 0.125
_LEAST_LIFT = 2.0
# A label of fewer pictures names a group only if hardly any other of many groups has it.
_LEAST_SHARE = 0.2
_MANY = 20
# A second label joins the title when it weighs at least so much of the first.
_SECOND = 0.4
# A label of so many pictures names a group even if other groups have it too.
_BROAD_SHARE = 0.5
# Shares of fewer pictures are told of no pictures: "half of these 3" is nonsense.
_FEW = 5
# Where a picture was taken is no thing it shows.
_PLACES = frozenset({"indoors", "outdoors"})


@dataclass(frozen=True)
class _Fact:
    name: str
    share: float
    lift: float
    weight: float


@dataclass(frozen=True)
class _Cluster:
    """A brief made ready: facts that can name it, most telling first."""

    brief: ClusterBrief
    facts: tuple[_Fact, ...]
    parents: dict[str, tuple[str, ...]]
    clusters: int

    @property
    def named(self) -> bool:
        """Its first label tells it from the other clusters."""
        return bool(self.facts) and self.tells(self.facts[0])

    def apart(self, fact: _Fact) -> bool:
        """It is rarer in the other clusters; it can join a title."""
        return fact.weight >= _LEAST_WEIGHT and fact.lift >= min(_LEAST_LIFT, 0.8 * self.clusters)

    def tells(self, fact: _Fact) -> bool:
        """It can name the cluster by itself."""
        if not self.apart(fact):
            return False
        alone = self.clusters >= _MANY and fact.lift >= 0.8 * self.clusters
        return fact.share >= _LEAST_SHARE or alone

    def related(self, a: str, b: str) -> bool:
        """One is a kind of the other, both are kinds of the same, or they share their noun."""
        above_a, above_b = self.parents.get(a, ()), self.parents.get(b, ())
        if a in above_b or b in above_a or _noun(a) == _noun(b):
            return True
        return bool(above_a and above_b) and above_a[0] == above_b[0]

    def share(self, name: str) -> float:
        return next((fact.share for fact in self.facts if fact.name == name), 0.0)


class DeterministicDescriber:
    """Names clusters after their telling labels, or after what can be seen without labels."""

    key = "deterministic-3"

    def describe(
        self,
        briefs: Sequence[ClusterBrief],
        *,
        out_of_time: Callable[[], bool] | None = None,  # noqa: ARG002 - it is quick
    ) -> list[ClusterName]:
        """One name a brief, in order; titles are unique within the call, whatever their case."""
        lifts = [lift for brief in briefs for _, _, lift in brief.labels]
        clusters = max([len(briefs), *(math.ceil(lift) for lift in lifts)])
        read = [_read(brief, clusters) for brief in briefs]
        return [
            ClusterName(
                title=title,
                phrase=_phrase(cluster),
                description=_description(cluster),
                model=self.key,
            )
            for cluster, title in zip(read, _titles(read), strict=True)
        ]


def _read(brief: ClusterBrief, clusters: int) -> _Cluster:
    facts = []
    for name, share, lift in brief.labels:
        weight = share * math.log1p(lift) / math.log1p(max(clusters, 1))
        if tame(name) and in_sentence(tame(name)) not in _PLACES:
            facts.append(_Fact(tame(name), share, lift, weight))
    parents = {tame(name): tuple(map(tame, above)) for name, above in brief.parents}
    cluster = _Cluster(brief, tuple(facts), parents, clusters)
    # The first may be exact but rare: the first that tells enough names the cluster.
    return replace(cluster, facts=tuple(sorted(facts, key=lambda f: not cluster.tells(f))))


# Titles


def _titles(clusters: Sequence[_Cluster]) -> list[str]:
    titles: dict[int, str] = {}
    taken: set[str] = set()

    def take(place: int, title: str) -> None:
        titles[place] = title
        taken.add(title.casefold())

    wanted: dict[str, list[int]] = {}
    for place, cluster in enumerate(clusters):
        if (title := _label_title(cluster)) is not None:
            wanted.setdefault(title.casefold(), []).append(place)
    for places in wanted.values():
        if len(places) == 1:
            take(places[0], _label_title(clusters[places[0]]) or "")
    for places in wanted.values():
        if len(places) > 1:
            strongest_first = sorted(places, key=lambda i: (-clusters[i].facts[0].weight, i))
            for place in strongest_first:
                rivals = [clusters[i] for i in places if i != place]
                for title in _contrasts(clusters[place], rivals):
                    if 0 < len(title) <= TITLE_LENGTH and title.casefold() not in taken:
                        take(place, title)
                        break
            for place in strongest_first:
                if place not in titles:
                    plain = _label_title(clusters[place]) or ""
                    take(place, plain if plain.casefold() not in taken else numbered(plain, taken))
    looks = [
        (score, place, title)
        for place, cluster in enumerate(clusters)
        if place not in titles
        for score, title in _look_titles(cluster)
    ]
    for _, place, title in sorted(looks, key=lambda look: (-look[0], look[1], look[2])):
        if place not in titles and title.casefold() not in taken:
            take(place, title)
    for place, cluster in enumerate(clusters):
        if place not in titles:
            take(place, _last_resort(cluster, taken))
    return [titles[place] for place in range(len(clusters))]


def _label_title(cluster: _Cluster) -> str | None:
    """The title of a cluster that has a telling label; it need not be unique."""
    if not cluster.named:
        return None
    first = cluster.facts[0]
    for second in cluster.facts[1:]:
        enough = max(_LEAST_WEIGHT, _SECOND * first.weight)
        if (
            second.weight >= enough
            and cluster.apart(second)
            and not cluster.related(first.name, second.name)
        ):
            pair = _pair(cluster, first.name, second.name)
            if pair is not None:
                return pair
    return _single(cluster, first.name)


def _single(cluster: _Cluster, name: str) -> str:
    """The label's plural, or that of the nearest parent if it is too long."""
    for each in (name, *cluster.parents.get(name, ())):
        title = sentence_case(plural(each))
        if len(title) <= TITLE_LENGTH:
            return title
    title = sentence_case(plural(name))
    shorter = title[: TITLE_LENGTH + 1].rpartition(" ")[0]
    return shorter or title[:TITLE_LENGTH]


def _pair(cluster: _Cluster, a: str, b: str) -> str | None:
    """``Sofas and fireplaces``; where that is too long, with parents that end in the same noun."""
    for first in (a, *_shorter(cluster, a)):
        for second in (b, *_shorter(cluster, b)):
            title = sentence_case(f"{plural(first)} and {plural(second)}")
            if len(title) <= TITLE_LENGTH and not cluster.related(first, second):
                return title
    return None


def _shorter(cluster: _Cluster, name: str) -> list[str]:
    return [above for above in cluster.parents.get(name, ()) if _noun(above) == _noun(name)]


def _noun(name: str) -> str:
    return plural(name).rpartition(" ")[2].casefold()


def _contrasts(cluster: _Cluster, rivals: Sequence[_Cluster]) -> Iterator[str]:
    """Titles that tell a cluster from those of the same plain title, best first."""
    first = cluster.facts[0]
    ahead = {
        fact.name: fact.share - max(rival.share(fact.name) for rival in rivals)
        for fact in cluster.facts[1:]
    }
    narrower = [
        fact
        for fact in cluster.facts[1:]
        if first.name in cluster.parents.get(fact.name, ())
        and ahead[fact.name] >= 0.15
        and fact.share >= 0.5 * first.share
    ]
    for fact in sorted(narrower, key=lambda fact: -ahead[fact.name]):
        yield _single(cluster, fact.name)
    besides = [
        fact
        for fact in cluster.facts[1:]
        if ahead[fact.name] >= 0.1
        and fact.share >= 0.15
        and not cluster.related(first.name, fact.name)
    ]
    for fact in sorted(besides, key=lambda fact: -ahead[fact.name]):
        yield _pair(cluster, first.name, fact.name) or ""
    single = _single(cluster, first.name)
    for look in look_modifiers(cluster.brief, [rival.brief for rival in rivals]):
        yield f"{_label_title(cluster)}, {look}"
        yield f"{single}, {look}"


def _look_titles(cluster: _Cluster) -> list[tuple[float, str]]:
    """By looks; what most pictures of the cluster show takes the place of "pictures"."""
    titles = look_titles(cluster.brief, clusters=cluster.clusters, length=TITLE_LENGTH)
    broad = next((fact for fact in cluster.facts if fact.share >= _BROAD_SHARE), None)
    if broad is not None:
        name = _single(cluster, broad.name)
        modifiers = [f"{name}, {look}" for look in look_modifiers(cluster.brief, [])]
        kept = [title for title in (*modifiers, name) if len(title) <= TITLE_LENGTH]
        # Ahead of every title without the label.
        return [(10.0 - i, title) for i, title in enumerate(kept)] + titles
    return titles


def _last_resort(cluster: _Cluster, taken: set[str]) -> str:
    plain = [title for _, title in _look_titles(cluster)[:3]] or ["Mixed pictures"]
    touched = [f"{title}, {touch}" for touch in look_touches(cluster.brief) for title in plain]
    for title in (*plain, *touched):
        if len(title) <= TITLE_LENGTH and title.casefold() not in taken:
            return title
    return numbered(plain[0], taken)


# Sentences


def _phrase(cluster: _Cluster) -> str:
    size = cluster.brief.size
    these = "this picture" if size == 1 else f"these {counted(size, 'picture')}"
    look = look_words(cluster.brief)
    if not cluster.named:
        shares = colour_shares(cluster.brief)
        seen = f", {look}" if look else f"; by area {shares}" if shares else ""
        return _cut(f"{counted(size, 'picture')}{seen}.", PHRASE_LENGTH)
    first = cluster.facts[0]
    if size == 1:
        return _cut(f"One picture, labelled {in_sentence(first.name)}.", PHRASE_LENGTH)
    if size < _FEW:
        start = f"{counted(size, 'picture')}, labelled {in_sentence(first.name)}"
        return _cut(f"{start}; {look}." if look else f"{start}.", PHRASE_LENGTH)
    start = f"{_about(first.share)} of {these} show {plural(first.name)}"
    for ending in (*_more(cluster, first), *([f"; {look}"] if look else [])):
        if len(start) + len(ending) < PHRASE_LENGTH:
            return start + ending + "."
    return _cut(start + ".", PHRASE_LENGTH)


def _more(cluster: _Cluster, first: _Fact) -> Iterator[str]:
    """What the second most telling label adds to the first."""
    for fact in cluster.facts[1:]:
        if not cluster.apart(fact):
            continue
        if first.name in cluster.parents.get(fact.name, ()):
            within = fact.share / first.share
            if within < 0.93:
                yield f", {share_in_words(within)} of them {plural(fact.name)}"
        elif not cluster.related(first.name, fact.name):
            yield f", and {_about(fact.share).lower()} show {plural(fact.name)}"


def _description(cluster: _Cluster) -> str:
    brief, size = cluster.brief, cluster.brief.size
    sentences = []
    labels = listed([f"{in_sentence(f.name)} ({f.share:.0%})" for f in _worth_telling(cluster)])
    if cluster.named:
        sentences.append(f"Labels found in these {counted(size, 'picture')}: {labels}.")
        first = cluster.facts[0]
        if cluster.clusters >= 3 and first.lift >= 0.9 * cluster.clusters:
            sentences.append(f"Hardly any other group shows {plural(first.name)}.")
        elif first.lift >= 2:
            verb = "are" if countable(first.name) else "is"
            sentences.append(
                f"{sentence_case(plural(first.name))} {verb} {first.lift:.0f} times as common "
                "here as in the average group."
            )
    elif labels:
        sentences.append(f"No label tells them from the other groups; found were {labels}.")
    places = [
        f"{in_sentence(name)} ({share:.0%})"
        for name, share, _ in brief.labels
        if in_sentence(name) in _PLACES and share >= 0.5
    ]
    if places:
        sentences.append(f"Most were taken {places[0]}.")
    if look := look_words(brief):
        sentences.append(f"{'It is' if size == 1 else 'They are'} {look}.")
    if not cluster.named and (shares := colour_shares(brief)):
        sentences.append(f"Of their area, {shares}.")
    text = ""
    for sentence in sentences or ["Nothing sets these pictures apart in words."]:
        if len(text) + len(sentence) < DESCRIPTION_LENGTH:
            text = f"{text} {sentence}".strip()
    return text


def _worth_telling(cluster: _Cluster) -> list[_Fact]:
    """The first labels, without parents that say of the same pictures less."""
    told: list[_Fact] = []
    for fact in cluster.facts:
        narrower = [other for other in told if fact.name in cluster.parents.get(other.name, ())]
        if all(fact.share - other.share >= 0.05 for other in narrower):
            told.append(fact)
    return told[:5]


def _about(share: float) -> str:
    words = share_in_words(share)
    plain = words in ("all", "nearly all", "some")
    return sentence_case(words) if plain else f"About {words}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
