"""``imageclust score``: a run's result against labels that people gave."""

import csv
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from imageclust.errors import InvalidInput
from imageclust.models import JSON

_FILE = ("path", "file")
_LABEL = "label"


@dataclass(frozen=True)
class Score:
    """How far clusters and labels agree: 0 to 1, ``ari`` about 0 for chance.

    ``files`` are those that are in a cluster and have a label; outliers and files without a label
    are left out and counted.
    """

    nmi: float
    ari: float
    purity: float
    files: int
    classes: int
    clusters: int
    outliers: int
    unlabelled: int

    def to_json(self) -> JSON:
        return asdict(self)


def score_run(out: Path, labels: Path) -> Score:
    """Compare ``assignments.csv`` of a results folder with a table of files and labels.

    The table is a CSV with a column ``path`` or ``file`` and a column ``label``. A file is found by
    its path in the collection, else by its name where only one file has it.

    Raises:
        InvalidInput: the folder or the table is not what it should be, or no file has a label.
    """
    import numpy as np
    from imageclust.clustering import (
        adjusted_rand_index,
        normalized_mutual_information,
        purity,
    )

    rows = _rows(out / "assignments.csv", "the results folder of a run has one")
    known = _known(labels)
    names = Counter(_name(row["path"]) for row in rows)
    found, given, outliers, unlabelled = [], [], 0, 0
    for row in rows:
        label = known.get(row["path"])
        if label is None and names[_name(row["path"])] == 1:
            label = known.get(_name(row["path"]))
        if label is None:
            unlabelled += 1
        elif row["cluster_id"]:
            found.append(row["cluster_id"])
            given.append(label)
        else:
            outliers += row["status"] != "rejected"
    if not found:
        raise InvalidInput(f"no file in a cluster of {out} has a label in {labels}")
    clusters, classes = np.array(found), np.array(given)
    return Score(
        nmi=round(normalized_mutual_information(clusters, classes), 4),
        ari=round(adjusted_rand_index(clusters, classes), 4),
        purity=round(purity(clusters, classes), 4),
        files=len(found),
        classes=len(set(given)),
        clusters=len(set(found)),
        outliers=outliers,
        unlabelled=unlabelled,
    )


def _known(table: Path) -> dict[str, str]:
    rows = _rows(table, "it is a table of files and labels")
    columns = rows[0].keys() if rows else ()
    name = next((column for column in _FILE if column in columns), None)
    if name is None or _LABEL not in columns:
        raise InvalidInput(
            f"{table} needs a column 'path' or 'file' and a column 'label'; "
            f"it has {', '.join(columns) or 'no rows'}"
        )
    return {row[name]: row[_LABEL] for row in rows if row[_LABEL]}


def _rows(table: Path, what: str) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
            return list(csv.DictReader(lines))
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {table}: {what}") from None
    except (IsADirectoryError, csv.Error) as broken:
        raise InvalidInput(f"{table} cannot be read as CSV: {broken}") from None


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
