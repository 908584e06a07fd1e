"""Does a clustering come back when some of the rows are left out?"""

from typing import Any

import numpy as np

from imageclust.clustering.geometry import Floats, Labels
from imageclust.clustering.methods import SharedWork
from imageclust.clustering.quality import adjusted_rand_index

_SAMPLE = 1500
_SHARE = 0.8
_TIMES = 3


def stability(
    rows: Floats, labels: Labels, method: str, settings: dict[str, Any], *, seed: int
) -> float | None:
    """Mean adjusted Rand index between a result and the same setting on parts of the rows.

    Each part holds four fifths of the rows, at most 1,500; outliers of the result are left out of
    the comparison. Sizes in the setting shrink with the part. Source: Ben-Hur, Elisseeff & Guyon
    2002.

    Args:
        rows: (n, d) float32, unit rows.
        labels: (n,) int32 of the result.
        method: the method that made it.
        settings: its parameters.
        seed: of the parts.

    Returns:
        -0.5 to 1, or None when there is too little to compare.
    """
    n, k = len(rows), int(labels.max(initial=-1)) + 1
    count = min(int(_SHARE * n), _SAMPLE)
    if k < 2 or count < max(2 * k, 10) or "fallback" in settings:
        return None
    rng = np.random.default_rng((seed, 9))
    scores = []
    for _ in range(_TIMES):
        picks = np.sort(rng.choice(n, count, replace=False))
        inside = labels[picks] >= 0
        try:
            again = SharedWork(rows[picks], seed=seed).run(method, _scaled(settings, count / n, k))
        except (ValueError, np.linalg.LinAlgError):
            scores.append(0.0)
            continue
        scores.append(adjusted_rand_index(labels[picks][inside], again.labels[inside]))
    return float(np.mean(scores))


def _scaled(settings: dict[str, Any], share: float, k: int) -> dict[str, Any]:
    scaled = dict(settings)
    if "clusters" in scaled:
        scaled["clusters"] = k
    if "min_cluster_size" in scaled:
        scaled["min_cluster_size"] = max(round(scaled["min_cluster_size"] * share), 2)
    return scaled
