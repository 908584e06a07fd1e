import pytest
from imageclust.errors import InvalidInput
from imageclust.models import FileSeen
from imageclust.steps.gather import first_paths, kept_paths
from imageclust.steps.publish_run import count_outcomes, outcomes_of

PLACES = {
    "k": {"status": "clustered", "cluster_id": "c0001", "rank": 3},
    "c": {"status": "duplicate", "cluster_id": "c0001", "rank": 3, "duplicate_of": "k"},
    "o": {"status": "outlier", "cluster_id": "", "rank": 0},
    "p": {"status": "duplicate", "cluster_id": "", "rank": 0, "duplicate_of": "o"},
    "r": {"status": "rejected", "reason": "it is no image"},
}


def file(path: str, image_id: str | None, reason: str | None = None) -> FileSeen:
    return FileSeen(path=path, uri=f"s3://u/{path}", size=1, image_id=image_id, reason=reason)


FILES = [
    file("z.jpg", "k"), file("m.jpg", "k"), file("a.jpg", "c"), file("b.jpg", "c"),
    file("o.jpg", "o"), file("p.jpg", "p"), file("r1", "r"), file("r2", "r"),
    file("gone", None, "removed"),
]  # fmt: skip


def test_every_file_has_one_outcome() -> None:
    outcomes = outcomes_of(FILES, PLACES, first_paths(FILES))
    assert [outcome.path for outcome in outcomes] == [f.path for f in FILES]
    counts = count_outcomes(outcomes)
    assert counts.balanced
    assert (counts.clustered, counts.outliers, counts.duplicates, counts.rejected) == (1, 1, 4, 3)


def test_all_files_of_a_copy_repeat_the_file_that_stands_for_the_keeper() -> None:
    told = {outcome.path: outcome for outcome in outcomes_of(FILES, PLACES, first_paths(FILES))}
    assert told["m.jpg"].status == "clustered", "the first by path, not the first listed"
    for path in ("z.jpg", "a.jpg", "b.jpg"):
        assert (told[path].status, told[path].duplicate_of) == ("duplicate", "m.jpg")
        assert (told[path].cluster_id, told[path].rank) == ("c0001", 3)
    assert (told["p.jpg"].duplicate_of, told["p.jpg"].cluster_id) == ("o.jpg", "")
    assert told["r2"].status == "rejected"
    assert told["gone"].reason == "removed"


def test_the_order_of_the_files_changes_nothing() -> None:
    forward, backward = (
        outcomes_of(FILES, PLACES, first_paths(FILES)),
        outcomes_of(FILES[::-1], PLACES, first_paths(FILES[::-1])),
    )
    assert forward == backward[::-1]
    assert first_paths(FILES) == first_paths(FILES[::-1])


def test_a_kept_file_stands_for_its_image() -> None:
    kept = kept_paths(FILES, ["z.jpg", "p*"])
    assert kept == {"z.jpg", "p.jpg"}
    first = first_paths(FILES, kept)
    assert first["k"] == "z.jpg"
    told = {outcome.path: outcome for outcome in outcomes_of(FILES, PLACES, first)}
    assert told["z.jpg"].status == "clustered"
    assert {told[path].duplicate_of for path in ("m.jpg", "a.jpg", "b.jpg")} == {"z.jpg"}
    assert count_outcomes(list(told.values())).balanced


def test_a_path_with_signs_of_a_glob_names_itself() -> None:
    files = [file("a[1].jpg", "a"), file("a1.jpg", "a"), file("album/b.jpg", "b")]
    assert kept_paths(files, ["a[1].jpg"]) == {"a[1].jpg"}
    assert kept_paths(files, ["a[12].jpg"]) == {"a1.jpg"}
    assert kept_paths(files, ["*.jpg"]) == {"a[1].jpg", "a1.jpg", "album/b.jpg"}
    with pytest.raises(InvalidInput, match=r"no file of the collection .* 'b\.jpg'"):
        kept_paths(files, ["a1.jpg", "b.jpg"])
