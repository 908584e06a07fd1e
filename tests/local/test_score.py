import csv
import json
from pathlib import Path

import pytest
from imageclust.errors import InvalidInput

from local.cli import main
from local.score import score_run


def results(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    folder.mkdir()
    with (folder / "assignments.csv").open("w", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(["path", "status", "cluster_id"])
        table.writerows(rows)
    return folder


def labels(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


ROWS = [
    ("a/1.jpg", "clustered", "c0001"),
    ("a/2.jpg", "clustered", "c0001"),
    ("b/1.jpg", "clustered", "c0002"),
    ("b/3.jpg", "duplicate", "c0002"),
    ("b/4.jpg", "clustered", "c0002"),
    ("o.jpg", "outlier", ""),
    ("torn.jpg", "rejected", ""),
    ("new.jpg", "clustered", "c0001"),
]
TABLE = (
    "file,label\na/1.jpg,x\n2.jpg,x\nb/1.jpg,y\n3.jpg,y\n4.jpg,x\no.jpg,x\ntorn.jpg,y\n1.jpg,z\n"
)


def test_clusters_against_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = results(tmp_path / "out", ROWS), labels(tmp_path / "labels.csv", TABLE)
    score = score_run(out, table)
    assert (score.files, score.classes, score.clusters) == (5, 2, 2)
    assert (score.outliers, score.unlabelled) == (1, 1)
    assert score.purity == 0.8
    # Five rows by hand: xx|yyx. Mutual information over the mean entropy, and Hubert & Arabie.
    assert score.nmi == pytest.approx(0.4325, abs=1e-4)
    assert score.ari == pytest.approx(0.1667, abs=1e-4)
    assert main(["score", str(out), str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == score.to_json()
    assert main(["score", str(out), str(table)]) == 0
    assert "NMI 0.43" in capsys.readouterr().out


def test_equal_partitions_agree_whatever_their_names(tmp_path: Path) -> None:
    out = results(tmp_path / "out", ROWS[:5])
    table = labels(tmp_path / "t.csv", "path,label\na/1.jpg,q\na/2.jpg,q\nb/1.jpg,p\n3.jpg,p\n")
    score = score_run(out, table)
    assert (score.nmi, score.ari, score.purity, score.files) == (1.0, 1.0, 1.0, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,kind\na,b\n", "needs a column 'path' or 'file' and a column 'label'; it has name"),
        ("", "it has no rows"),
        ("file,label\nelsewhere.jpg,x\n", "no file in a cluster"),
    ],
)
def test_a_table_that_says_nothing_is_refused(tmp_path: Path, text: str, said: str) -> None:
    out = results(tmp_path / "out", ROWS)
    with pytest.raises(InvalidInput, match=said):
        score_run(out, labels(tmp_path / "labels.csv", text))


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = labels(tmp_path / "labels.csv", TABLE)
    assert main(["score", str(tmp_path), str(table)]) == 2
    assert "assignments.csv: the results folder of a run has one" in capsys.readouterr().err
    assert main(["score", str(results(tmp_path / "out", ROWS)), str(tmp_path)]) == 2
    assert "cannot be read as CSV" in capsys.readouterr().err
