"""Pulling a model: resumed, checked, and plain words when there is no network."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from imageclust.embedding import CardFile, ModelCard, ModelRegistry, pull
from imageclust.embedding.pull import https_fetch
from imageclust.errors import CorruptData, InvalidInput, Permanent, StoreUnavailable, UnknownModel

MakeModel = Callable[..., Path]


class Publisher:
    """Serves one file in small blocks; breaks off after ``breaks_at`` bytes of an answer."""

    def __init__(self, data: bytes, breaks_at: int | None = None) -> None:
        self.data, self.breaks_at = data, breaks_at
        self.starts: list[int] = []

    def fetch(self, url: str, start: int) -> Iterator[bytes]:
        assert url == "https://models.example.org/tiny.onnx"
        self.starts.append(start)
        end = len(self.data) if self.breaks_at is None else start + self.breaks_at
        for at in range(start, min(end, len(self.data)), 16):
            yield self.data[at : min(at + 16, end)]
        if end < len(self.data):
            raise ConnectionResetError("connection reset")


@pytest.fixture
def known(make_model: MakeModel) -> tuple[ModelCard, bytes]:
    path = make_model()
    card = ModelCard.parse(path.read_bytes())
    url = "https://models.example.org/tiny.onnx"
    return replace(card, url=url), path.with_suffix(".onnx").read_bytes()


def test_pull_installs_a_model_and_says_so_in_one_line(
    known: tuple[ModelCard, bytes], tmp_path: Path
) -> None:
    card, data = known
    registry, said = ModelRegistry(tmp_path / "models"), list[str]()
    publisher = Publisher(data)

    pulled = pull("tiny", registry=registry, fetch=publisher.fetch, say=said.append, known=(card,))

    assert registry.get("tiny") == pulled == card
    assert registry.path("tiny").read_bytes() == data
    assert len(said) == 1
    assert "MIT" in said[0]
    assert card.url in said[0]
    pull("tiny", registry=registry, fetch=publisher.fetch, say=said.append, known=(card,))
    assert publisher.starts == [0]
    assert "already" in said[1]
    assert not list((tmp_path / "models").glob(".*"))


def test_pull_resumes_where_it_broke_off(known: tuple[ModelCard, bytes], tmp_path: Path) -> None:
    card, data = known
    registry = ModelRegistry(tmp_path / "models")
    publisher = Publisher(data, breaks_at=len(data) // 2)

    with pytest.raises(StoreUnavailable, match="builtin") as caught:
        pull("tiny", registry=registry, fetch=publisher.fetch, known=(card,))
    assert "connection reset" in str(caught.value)
    publisher.breaks_at = None
    pull("tiny", registry=registry, fetch=publisher.fetch, known=(card,))

    assert publisher.starts == [0, len(data) // 2]
    assert registry.path("tiny").read_bytes() == data


def test_an_answer_that_ends_early_is_resumed(
    known: tuple[ModelCard, bytes], tmp_path: Path
) -> None:
    card, data = known
    registry = ModelRegistry(tmp_path / "models")
    with pytest.raises(StoreUnavailable, match="ended early"):
        pull("tiny", registry=registry, fetch=Publisher(data[:50]).fetch, known=(card,))
    rest = Publisher(data)
    pull("tiny", registry=registry, fetch=rest.fetch, known=(card,))
    assert rest.starts == [50]


@pytest.mark.parametrize("change", [lambda d: b"x" + d[1:], lambda d: d + b"more"])
def test_other_bytes_are_thrown_away(
    known: tuple[ModelCard, bytes], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    card, data = known
    registry = ModelRegistry(tmp_path / "models")
    with pytest.raises(CorruptData, match="thrown away"):
        pull("tiny", registry=registry, fetch=Publisher(change(data)).fetch, known=(card,))
    assert not list((tmp_path / "models").iterdir())


def test_unknown_names_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="resnet50-v1-12"):
        pull("resnet51", registry=ModelRegistry(tmp_path))


def test_two_pulls_at_once_do_not_write_into_each_other(
    known: tuple[ModelCard, bytes], tmp_path: Path
) -> None:
    card, data = known
    registry = ModelRegistry(tmp_path / "models")

    def meanwhile(url: str, start: int) -> Iterator[bytes]:
        yield data[:50]
        with pytest.raises(Permanent, match=r"Another imageclust fetches tiny\.onnx"):
            pull("tiny", registry=registry, fetch=Publisher(data).fetch, known=(card,))
        yield data[50:]

    pull("tiny", registry=registry, fetch=meanwhile, known=(card,))
    assert registry.path("tiny").read_bytes() == data


def test_a_classifier_comes_with_its_labels(known: tuple[ModelCard, bytes], tmp_path: Path) -> None:
    card, data = known
    names = b"red\nblue\n"
    url = "https://labels.example.org/classes.txt"
    labels = CardFile("classes.txt", hashlib.sha256(names).hexdigest(), url, len(names))
    registry, said = ModelRegistry(tmp_path / "models"), list[str]()
    # As it was fetched before its labels were known.
    pull("tiny", registry=registry, fetch=Publisher(data).fetch, known=(card,))
    assert registry.labels_path("tiny") is None

    pull(
        "tiny",
        registry=registry,
        fetch=lambda found, start: iter([{url: names}[found][start:]]),
        say=said.append,
        known=(replace(card, labels="classes.txt", labels_file=labels),),
    )
    assert url in said[0]
    path = registry.labels_path("tiny")
    assert path is not None
    assert path.read_bytes() == names
    # What was installed by pull can be given on, digests checked.
    assert ModelRegistry(tmp_path / "other").add(registry.path("tiny")).labels_file == labels


def test_only_https_is_fetched() -> None:
    with pytest.raises(InvalidInput, match="https"):
        next(https_fetch("file:///etc/passwd", 0))
