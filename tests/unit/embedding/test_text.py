"""Text towers: the tokens that the publisher's rule gives, and vectors that a plain sum gives."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imageclust.embedding import (
    ModelCard,
    ModelRegistry,
    TextEncoder,
    open_embedder,
    open_text,
)
from imageclust.errors import CorruptData, InvalidInput

from tests.standins.tiny_towers import CONTEXT, END, PAD, make_towers, table_of

KINDS = ["bpe", "unigram"]
TEXTS = ["a red house", "RED", "Blue Water under the green tree", "zebra", "  green  sea "]


def plain_bpe(word: str, model: dict[str, Any]) -> list[str]:
    """Byte pair encoding as its paper says: the earliest learned merge first."""
    rank = {tuple(merge): place for place, merge in enumerate(model["merges"])}
    parts = [*word[:-1], word[-1] + "</w>"]
    while True:
        pairs = [(rank[pair], at) for at, pair in enumerate(pairwise(parts))
                 if pair in rank]  # fmt: skip
        if not pairs:
            return parts
        at = min(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def plain_unigram(word: str, model: dict[str, Any]) -> list[str]:
    """The split with the highest sum of log probabilities; an unknown letter costs 10 more."""
    score = dict(model["vocab"])
    unknown = min(score.values()) - 10
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, len(word) + 1):
        best.append(
            max(
                (best[start][0] + score.get(word[start:end], unknown),
                 [*best[start][1], word[start:end]])
                for start in range(end)
                if word[start:end] in score or end - start == 1
            )
        )  # fmt: skip
    return best[-1][1]


def plain_ids(text: str, tokenizer: Path) -> list[int]:
    """Token ids by the plain algorithms, cut and filled by hand."""
    file = json.loads(tokenizer.read_text("utf-8"))
    model = file["model"]
    words = text.lower().split()
    if model["type"] == "BPE":
        vocabulary = model["vocab"]
        tokens = [token for word in words for token in plain_bpe(word, model)]
    else:
        vocabulary = {token: place for place, (token, _) in enumerate(model["vocab"])}
        # Only what the vocabulary lacks is joined into one unknown token by the library.
        tokens = [token for word in words for token in plain_unigram("▁" + word, model)]
    ids = [vocabulary.get(token, vocabulary["<unk>"]) for token in tokens]
    ids = [*ids[: CONTEXT - 1], vocabulary[END]]
    return ids + [vocabulary[PAD]] * (CONTEXT - len(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_exactly_those_of_the_plain_algorithm(tmp_path: Path, kind: Any) -> None:
    card = make_towers(tmp_path, kind=kind)
    texts = ["a red house", "Green Grass under the SEA", "red earth and blue water", "house tree"]
    ids, mask = TextEncoder(card, tmp_path).tokens(texts)
    assert ids.shape == mask.shape == (len(texts), CONTEXT)
    assert card.text is not None
    tokenizer = tmp_path / card.text.tokenizer.file
    for text, row, filled in zip(texts, ids.tolist(), mask.tolist(), strict=True):
        expected = plain_ids(text, tokenizer)
        assert row == expected
        said = expected.index(vocabulary(tokenizer)[END]) + 1
        assert filled == [1] * said + [0] * (CONTEXT - said)


def vocabulary(tokenizer: Path) -> dict[str, int]:
    model = json.loads(tokenizer.read_text("utf-8"))["model"]
    if model["type"] == "BPE":
        found: dict[str, int] = model["vocab"]
        return found
    return {token: place for place, (token, _) in enumerate(model["vocab"])}


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_cut_and_keeps_its_end(tmp_path: Path, kind: Any) -> None:
    card = make_towers(tmp_path, kind=kind)
    assert card.text is not None
    end = vocabulary(tmp_path / card.text.tokenizer.file)[END]
    encoder = TextEncoder(card, tmp_path)
    (long, short), (mask, _) = encoder.tokens(["red " * 50, "red " * (CONTEXT - 1)])
    assert long[-1] == end
    assert mask.all()
    assert np.array_equal(long, short), "what is beyond the context does not count"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("ids", ["int64", "int32"])
def test_vectors_agree_with_a_plain_sum(tmp_path: Path, kind: Any, mask: bool, ids: Any) -> None:
    card = make_towers(tmp_path, kind=kind, mask=mask, ids=ids)
    assert card.text is not None
    tokenizer = tmp_path / card.text.tokenizer.file
    table = table_of(tokenizer).astype(np.float64)
    encoder = TextEncoder(card, tmp_path)
    # Of words that the corpus has and single spaces, for the plain algorithms.
    texts = [text for text in TEXTS if text != "zebra" and text == " ".join(text.split())]
    vectors = encoder.embed(texts)
    assert vectors.shape == (len(texts), 3)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    for text, vector in zip(texts, vectors, strict=True):
        plain = table[plain_ids(text, tokenizer)].sum(axis=0)
        assert vector @ (plain / np.linalg.norm(plain)) >= 0.999


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_one_vector_whatever_stands_beside_it(tmp_path: Path, kind: Any) -> None:
    encoder = TextEncoder(make_towers(tmp_path, kind=kind), tmp_path)
    together = encoder.embed(TEXTS)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(encoder.embed(TEXTS[::-1])[::-1] - together).max() < 1e-6
    assert encoder.embed([]).shape == (0, 3)


def test_case_counts_unless_the_card_lowers_it(tmp_path: Path) -> None:
    lowered = TextEncoder(make_towers(tmp_path / "a"), tmp_path / "a")
    assert np.array_equal(lowered.embed(["A RED House"]), lowered.embed(["a red house"]))
    kept = TextEncoder(make_towers(tmp_path / "b", lower_case=False), tmp_path / "b")
    assert not np.array_equal(kept.embed(["RED"]), kept.embed(["red"]))


def test_words_lie_beside_their_pictures(tmp_path: Path) -> None:
    make_towers(tmp_path)
    registry = ModelRegistry(tmp_path)
    words = open_text("tiny_towers", registry=registry).embed(["red", "a green tree", "the blue"])
    pictures = [np.full((20, 30, 3), colour, np.uint8) for colour in
                [(200, 10, 10), (10, 200, 10), (10, 10, 200)]]  # fmt: skip
    vectors = open_embedder("tiny_towers", registry=registry).embed(pictures)
    assert (words @ vectors.T).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_a_text_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    encoder = TextEncoder(make_towers(tmp_path), tmp_path)
    with pytest.raises(InvalidInput, match="at least one word"):
        encoder.embed(["red", text])


def test_a_model_of_pictures_only_names_those_with_text(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model("plain").parent
    make_towers(folder)
    with pytest.raises(InvalidInput, match=r"pictures only.*clip-vit-b32.*tiny_towers"):
        open_text("plain", registry=ModelRegistry(folder))
    with pytest.raises(InvalidInput, match="built-in"):
        open_text("builtin", registry=ModelRegistry(folder))


def test_without_its_text_tower_a_model_still_has_its_pictures(tmp_path: Path) -> None:
    make_towers(tmp_path)
    (tmp_path / "tiny_towers.text.onnx").unlink()
    registry = ModelRegistry(tmp_path)
    assert open_embedder("tiny_towers", registry=registry).dimension == 3
    with pytest.raises(InvalidInput, match=r"tiny_towers\.text\.onnx is missing"):
        open_text("tiny_towers", registry=registry)


def test_without_the_library_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder(make_towers(tmp_path), tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InvalidInput, match=r"pip install 'imageclust\[text\]'"):
        encoder.embed(["red"])


@pytest.mark.parametrize("file", ["tiny_towers.text.onnx", "tiny_towers.tokenizer.json"])
def test_another_file_of_the_name_is_not_used(tmp_path: Path, file: str) -> None:
    encoder = TextEncoder(make_towers(tmp_path), tmp_path)
    (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(InvalidInput, match="does not match its card"):
        encoder.embed(["red"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda card: {"pad": "<none>"}, "no token '<none>'"),
        (lambda card: {"output": replace(card.text.output, name="pooled")}, r"its card.*'pooled'"),
        (lambda card: {"output": replace(card.text.output, dimension=4)},
         r"shape \(1, 3\); its card promises \(1, 4\)"),
        (lambda card: {"tokenizer": card.files[0]}, "cannot be read as a tokenizer"),
        (lambda card: {"weights": card.files[0]}, "does not fit its card"),
        (lambda card: {"weights": card.files[2]}, "cannot be loaded as a model"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_their_card_are_told(
    tmp_path: Path, changes: Callable[[ModelCard], dict[str, Any]], message: str
) -> None:
    card = make_towers(tmp_path)
    assert card.text is not None
    encoder = TextEncoder(replace(card, text=replace(card.text, **changes(card))), tmp_path)
    with pytest.raises(InvalidInput, match=message):
        encoder.embed(["red"])


def test_values_that_are_not_finite_are_no_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.standins import tiny_towers

    monkeypatch.setattr(tiny_towers, "table_of", lambda path: np.full_like(table_of(path), np.nan))
    encoder = TextEncoder(make_towers(tmp_path), tmp_path)
    with pytest.raises(CorruptData, match="not finite"):
        encoder.embed(["red"])
