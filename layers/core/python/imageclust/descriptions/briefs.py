"""What a describer is told of each cluster: shares and lifts of labels and visual attributes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from imageclust.labels import Label
from imageclust.models import ClusterBrief

_MOST_FACTS = 12
_LEAST_SHARE = 0.1


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
    """
    label_facts = _distinguishing(members, labels)
    attribute_facts = _distinguishing(members, attributes)
    return [
        ClusterBrief(
            cluster_id=cluster_id,
            size=len(members[i]),
            labels=label_facts[i],
            attributes=attribute_facts[i],
            exemplars=tuple(exemplars[i]),
        )
        for i, cluster_id in enumerate(cluster_ids)
    ]


def _distinguishing(
    members: Sequence[Sequence[str]], labels: Mapping[str, Sequence[Label]]
) -> list[tuple[tuple[str, float, float], ...]]:
    """(name, share, lift) of each cluster's telling labels, by class-based TF-IDF.

    A label counts in an image by its confidence. Share is its mean over the cluster, lift that
    share over the mean of the clusters' shares. The weight share · log(1 + lift) is c-TF-IDF
    (Grootendorst, 2022, BERTopic) with shares in place of counts.
    """
    shares: list[dict[str, float]] = []
    for cluster in members:
        counts: Counter[str] = Counter()
        for image_id in cluster:
            for label in labels.get(image_id, ()):
                counts[label.name] += label.confidence / 100  # type: ignore[assignment]
        shares.append({name: value / len(cluster) for name, value in counts.items()})
    total: Counter[str] = Counter()
    for cluster_shares in shares:
        for name, share in cluster_shares.items():
            total[name] += share  # type: ignore[assignment]
    facts = []
    for cluster_shares in shares:
        weighed = []
        for name, share in cluster_shares.items():
            lift = share * len(members) / total[name]
            if share >= _LEAST_SHARE:
                weighed.append((share * math.log1p(lift), name, share, lift))
        weighed.sort(key=lambda fact: (-fact[0], fact[1]))
        facts.append(
            tuple((n, round(min(s, 1.0), 4), round(x, 3)) for _, n, s, x in weighed[:_MOST_FACTS])
        )
    return facts
