"""What the documents promise is there: commands, options, targets, links, error names."""

import inspect
import json
import re
from pathlib import Path

import pytest
from imageclust import errors
from imageclust.embedding import ModelCard
from imageclust.embedding.known import KNOWN_MODELS
from imageclust.models import RunConfig

from local.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_option_in_the_readme_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    told = capsys.readouterr().out
    table = [line for line in README.splitlines() if line.startswith("| `--")]
    promised = {option for line in table for option in re.findall(r"--[a-z-]+", line)}
    assert len(promised) >= 12
    assert {option for option in promised if option not in told} == set()


def test_every_setting_of_a_run_is_on_the_page_with_its_default() -> None:
    page = (ROOT / "docs" / "api.md").read_text().partition("## Settings of a run")[2]
    rows = re.findall(r"^\| `([a-z_]+)` \| `(.+?)` \|", page, re.MULTILINE)
    assert {name: json.loads(value) for name, value in rows} == RunConfig().to_json()


def test_every_make_target_in_the_readme_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets
    assert len(targets) <= 10


def test_every_link_in_the_documents_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_cards_in_the_model_page_are_cards() -> None:
    page = (ROOT / "docs" / "models.md").read_text().replace('"…"', f'"{"0" * 64}"')
    plain, tower = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    card = json.loads(plain)
    read = ModelCard.from_json(card)
    assert read.features.dimension == 1280
    assert read.logits is not None
    text = json.loads(f"{{{tower}}}".replace("NAME", read.name))
    text["text"]["output"]["dimension"] = 1280
    assert ModelCard.from_json({**card, **text}).text is not None


def test_the_models_in_the_model_page_are_the_known_ones() -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| (.*?) \| (\d+) \|(.*?)\| (\S+) \|$",
        (ROOT / "docs" / "models.md").read_text(),
        re.MULTILINE,
    )
    told = {
        (name, tuple(re.findall(r"\d+", sizes)), int(dimension), bool(text.strip()), licence)
        for name, sizes, dimension, text, licence in rows
    }
    assert told == {
        (
            card.name,
            tuple(
                str(round(file.size_bytes / 1e6))
                for file in card.files
                if file is not card.labels_file
            ),
            card.features.dimension,
            card.text is not None,
            card.licence,
        )
        for card in KNOWN_MODELS
    }


def test_the_error_tree_is_drawn_as_it_is() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"[├└]── ([A-Za-z]+)", errors.__doc__)
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.ImageclustError)
    }
    assert set(drawn) | {"ImageclustError"} == set(classes)
    assert all(kind.__doc__ for kind in classes.values())
