"""Labels: are the confidences honest, what do labels add to vectors, how well do they spread?

    python benchmarks/labels.py [MODEL]

Needs the labelled photos and the models in ``../shared``. Clustering is scikit-learn's k-means at
the true number of classes on the first 100 principal components, mean of six seeds (twenty for
the sets of fewer than 200 photos).
"""

import csv
import sys
from pathlib import Path

import numpy as np
from imageclust.embedding import ModelRegistry, open_model
from imageclust.images import decode_image
from imageclust.labels import Label, LabelSet, classify
from imageclust.labels.fusion import fuse, label_block
from imageclust.labels.spread import agreement, spread_labels
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

SHARED = Path(__file__).resolve().parents[2] / "shared"
SETS = ("houses_rooms", "aws_rooms", "caltech45", "clothing10", "art_procedural")
WEIGHTS = (0.0, 0.03, 0.05, 0.1, 0.2)
Matrix = NDArray[np.float32]


def read_set(name: str, model_name: str) -> tuple[Matrix, Matrix, list[dict[str, str]]]:
    folder = SHARED / "data" / name
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    model = open_model(model_name, registry=ModelRegistry(SHARED / "models"))
    features, logits = [], []
    for start in range(0, len(rows), 16):
        images = [
            decode_image((folder / "images" / row["file"]).read_bytes(), min_side=model.min_side)
            for row in rows[start : start + 16]
        ]
        answer = model.run([image.pixels for image in images])
        assert answer.logits is not None
        features.append(answer.features)
        logits.append(answer.logits)
    return np.concatenate(features), np.concatenate(logits), rows


def calibration(model_name: str, label_set: LabelSet) -> None:
    _, logits, rows = read_set("imagenet1k_samples", model_name)
    truth = [label_set.names[int(row["class_index"])] for row in rows]
    answers = classify(logits, label_set, max_labels=2000, min_confidence=0)
    classes = set(label_set.names[: label_set.classes])
    best = [
        max((x for x in labels if x.name in classes), key=lambda x: x.confidence)
        for labels in answers
    ]
    right = np.array([label.name == name for label, name in zip(best, truth, strict=True)])
    sure = np.array([label.confidence for label in best])
    print(f"calibration, imagenet1k_samples, {len(rows)} images, top-1 {right.mean():.3f}")
    print("| confidence | images | mean confidence | right |\n|---|---|---|---|")
    for low in range(0, 100, 20):
        here = (sure >= low) & (sure < low + 20 + (low == 80))
        if here.any():
            print(
                f"| {low} to {low + 20} | {here.sum()} | {sure[here].mean():.0f} % "
                f"| {100 * right[here].mean():.0f} % |"
            )


def quality(points: Matrix, names: list[str]) -> float:
    centred = points - points.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = (left * values)[:, :100]
    k = len(set(names))
    scores = [
        normalized_mutual_info_score(
            names, KMeans(k, n_init=3, random_state=seed).fit_predict(points)
        )
        for seed in range(20 if len(names) < 200 else 6)
    ]
    return float(np.mean(scores))


def spread_quality(vectors: Matrix, labels: list[tuple[Label, ...]]) -> str:
    """One image in ten is labelled, as the members nearest the centres of n/20 clusters are."""
    n = len(vectors)
    found = KMeans(max(1, n // 20), n_init=1, random_state=0).fit(vectors)
    away = found.transform(vectors)
    near = np.argsort(away, axis=0, kind="stable")[:2].ravel()
    exemplars = sorted(set(near.tolist()))
    spread = spread_labels(vectors, exemplars, [labels[row] for row in exemplars])
    others = [row for row in range(n) if row not in set(exemplars)]
    result = agreement([spread[row] for row in others], [labels[row] for row in others])
    return (
        f"{len(exemplars)} of {n} labelled | {result.precision:.2f} "
        f"| {result.stated:.2f} | {result.real:.2f} | {result.recall:.2f}"
    )


def main() -> None:
    model_name = sys.argv[1] if len(sys.argv) > 1 else "mobilenet_v2_1.0_224_w8"
    if not (SHARED / "data").exists():
        print("needs ../shared")
        return
    label_set = LabelSet.from_file(SHARED / "models" / "imagenet1k_labels.json")
    calibration(model_name, label_set)
    scores, spreads = [], []
    for name in SETS:
        vectors, logits, rows = read_set(name, model_name)
        labels = classify(logits, label_set)
        block = label_block(labels)
        classes = [row["label"] for row in rows]
        scores.append([quality(fuse(vectors, block, weight=w), classes) for w in WEIGHTS])
        spreads.append(spread_quality(vectors, labels))
    print("fusion, NMI by weight of the labels")
    print("| set | " + " | ".join(f"{w:g}" for w in WEIGHTS) + " |")
    print("|---|" + "---|" * len(WEIGHTS))
    for name, row in zip((*SETS, "mean"), [*scores, np.mean(scores, axis=0).tolist()], strict=True):
        print(f"| {name} | " + " | ".join(f"{score:.3f}" for score in row) + " |")
    print("spreading from exemplars")
    print("| set | images | precision | stated | real | recall |\n|---|---|---|---|---|---|")
    for name, line in zip(SETS, spreads, strict=True):
        print(f"| {name} | {line} |")


if __name__ == "__main__":
    main()
