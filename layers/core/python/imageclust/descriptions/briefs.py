"""What a describer is told of each cluster: shares and lifts of labels and visual attributes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from imageclust.errors import InvalidInput
from imageclust.labels import Label
from imageclust.models import ClusterBrief

_MOST_FACTS = 15
_LEAST_SHARE = 0.1
# How much a parent of every label of the run loses against a label that stands for itself.
_GENERAL = 0.85

Facts = tuple[tuple[str, float, float], ...]


def make_briefs(
    cluster_ids: Sequence[str],
    members: Sequence[Sequence[str]],
    *,
    labels: Mapping[str, Sequence[Label]],
    attributes: Mapping[str, Sequence[Label]],
    exemplars: Sequence[Sequence[str]],
) -> list[ClusterBrief]:
    """One brief a cluster, in order.

    Args:
        cluster_ids: k ids.
        members: the image ids of each cluster.
        labels: labels by image id; images may be absent.
        attributes: visual attributes by image id.
        exemplars: thumbnail URIs of each cluster.

    A label counts in an image by its confidence. Its share is the mean over the cluster, its lift
    that share over the mean of the clusters' shares, so at most k. Labels are ordered by
    class-based TF-IDF (Grootendorst, 2022, BERTopic) with shares in place of counts, less for
    general parents, the telling ones that do not repeat each other first. Raises InvalidInput.
    """
    if not len(cluster_ids) == len(members) == len(exemplars):
        raise InvalidInput(
            f"{len(cluster_ids)} clusters, but members of {len(members)} "
            f"and exemplars of {len(exemplars)}"
        )
    above = _parents(labels)
    label_facts = _telling(members, labels, _generality(above))
    attribute_facts = _telling(members, attributes, {})
    briefs = []
    for i, cluster_id in enumerate(cluster_ids):
        facts = _unrelated_first(label_facts[i], above)[:_MOST_FACTS]
        briefs.append(
            ClusterBrief(
                cluster_id=cluster_id,
                size=len(members[i]),
                labels=facts,
                attributes=attribute_facts[i][:_MOST_FACTS],
                exemplars=tuple(exemplars[i]),
                parents=tuple((name, above[name]) for name, _, _ in facts if above[name]),
            )
        )
    return briefs


def _parents(labels: Mapping[str, Sequence[Label]]) -> dict[str, tuple[str, ...]]:
    """Parents of every label, nearest first. A parent is a label too."""
    above: dict[str, tuple[str, ...]] = {}
    for found in labels.values():
        for label in found:
            if len(label.parents) >= len(above.get(label.name, ())):
                above[label.name] = tuple(p for p in label.parents if p != label.name)
    for parents in list(above.values()):
        for parent in parents:
            above.setdefault(parent, ())
    return above


def _generality(above: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """0 for a label that is nobody's parent, towards 1 for a parent of all (log scale)."""
    under = Counter(parent for parents in above.values() for parent in parents)
    most = math.log1p(max(len(above), 1))
    return {name: math.log1p(under[name]) / most for name in above}


def _telling(
    members: Sequence[Sequence[str]],
    labels: Mapping[str, Sequence[Label]],
    generality: Mapping[str, float],
) -> list[Facts]:
    """(name, share, lift) of each cluster's labels, most telling first."""
    shares: list[dict[str, float]] = []
    for cluster in members:
        counts: Counter[str] = Counter()
        for image_id in cluster:
            # A label given twice counts once.
            best: dict[str, float] = {}
            for label in labels.get(image_id, ()):
                best[label.name] = max(best.get(label.name, 0.0), label.confidence / 100)
            counts.update(best)
        shares.append({name: value / len(cluster) for name, value in counts.items()})
    total: Counter[str] = Counter()
    for cluster_shares in shares:
        total.update(cluster_shares)
    facts = []
    for cluster_shares in shares:
        weighed = []
        for name, share in cluster_shares.items():
            if share >= _LEAST_SHARE:
                lift = share * len(members) / total[name]
                weight = share * math.log1p(lift) * (1 - _GENERAL * generality.get(name, 0.0))
                weighed.append((weight, name, share, lift))
        weighed.sort(key=lambda fact: (-fact[0], fact[1]))
        facts.append(tuple((n, round(min(s, 1.0), 4), round(x, 3)) for _, n, s, x in weighed))
    return facts


def _unrelated_first(facts: Facts, above: Mapping[str, tuple[str, ...]]) -> Facts:
    """Labels that are no parent or child of one before them, then the rest; order is kept."""
    first: list[tuple[str, float, float]] = []
    for fact in facts:
        name = fact[0]
        if not any(n in above[name] or name in above[n] for n, _, _ in first):
            first.append(fact)
    return (*first, *(fact for fact in facts if fact not in first))
