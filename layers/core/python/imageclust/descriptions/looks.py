"""Visual attributes as plain noun phrases: "Dark purple pictures", "Yellow diagonal lines".

They say how pictures look and never what they show.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from imageclust.descriptions.words import in_sentence, listed, sentence_case
from imageclust.models import ClusterBrief

COLOURS = frozenset(
    (
        "Black",
        "Grey",
        "White",
        "Red",
        "Orange",
        "Yellow",
        "Green",
        "Teal",
        "Blue",
        "Purple",
        "Pink",
        "Brown",
        "Beige",
    )
)
ADJECTIVES = {
    "Blurred": "blurred",
    "Smooth": "smooth",
    "Busy texture": "busy",
    "High contrast": "high-contrast",
    "Low contrast": "soft",
    "Vivid colours": "vivid",
    "Muted colours": "muted",
    "Black and white": "monochrome",
    "Dark": "dark",
    "Bright": "bright",
    "Panorama format": "wide",
    "Tall format": "tall",
    "Portrait format": "upright",
    "Square format": "square",
    "Landscape format": "landscape-format",
}
"""Attribute → adjective, in the order in which English puts them before a colour."""
LINES = {
    "Vertical lines": "vertical lines",
    "Horizontal lines": "horizontal lines",
    "Diagonal lines": "diagonal lines",
}

_LEAST_WORD_SHARE = 0.4
# A colour names pictures when it covers so much of them, alone or two together.
_LEAST_COLOUR_SHARE = 0.12
_LEAST_COLOURED = 0.25
# What a word must add to be worth its place in a title.
_WORTH = 0.1
_LIGHT = frozenset(("Dark", "Bright"))
_SHAPES = frozenset(name for name in ADJECTIVES if name.endswith(" format"))
# Said by the colour already.
_IMPLIED = {("Dark", "Black"), ("Muted colours", "Grey"), ("Black and white", "Grey")}


@dataclass(frozen=True)
class _Word:
    name: str
    weight: float


def look_titles(brief: ClusterBrief, *, clusters: int, length: int) -> list[tuple[float, str]]:
    """(score, title) of every way to put the looks of a cluster, best first.

    ``clusters`` is how many there are in the run, ``length`` the most characters of a title.
    """
    adjectives, colours, nouns = [], [], [_Word("", 0.0)]
    for name, share, lift in brief.attributes:
        weight = share * math.log1p(lift) / math.log1p(max(clusters, 2)) - _WORTH
        if name in COLOURS and share >= _LEAST_COLOUR_SHARE:
            # How much of the picture a colour covers counts, also where others have it too.
            colours.append(_Word(name, weight + 0.5 * share))
        elif name in LINES and share >= 0.5:
            nouns.append(_Word(name, weight))
        elif name in ADJECTIVES and share >= _LEAST_WORD_SHARE and _telling(name, share, lift):
            # People see colours, lines and light before they see that a picture is smooth.
            adjectives.append(_Word(name, weight if name in _LIGHT else (weight - _WORTH) / 2))
    covered = {name: share for name, share, _ in brief.attributes}
    titles: dict[str, float] = {}
    for noun in nouns:
        for some in _up_to_two(colours):
            for qualities in _up_to_two(adjectives):
                words = (*qualities, *some, noun)
                names = {word.name for word in words if word.name}
                if any(a in names and b in names for a, b in _IMPLIED):
                    continue
                if some and sum(covered[word.name] for word in some) < _LEAST_COLOURED:
                    continue
                title = _phrase(qualities, some, noun.name)
                if title and len(title) <= length:
                    # A third and fourth word say less and less.
                    score = sum(word.weight for word in words) - 0.04 * len(names) ** 2
                    titles[title] = max(titles.get(title, -math.inf), score)
    return sorted(((score, title) for title, score in titles.items()), key=lambda t: (-t[0], t[1]))


def look_modifiers(brief: ClusterBrief, rivals: Sequence[ClusterBrief]) -> Iterator[str]:
    """What sets a cluster apart in looks from others of the same content: ``mostly white``."""
    others = [{name: share for name, share, _ in rival.attributes} for rival in rivals]

    def apart(name: str, share: float) -> float:
        return share - max((other.get(name, 0.0) for other in others), default=0.0)

    found = []
    for name, share, _ in brief.attributes:
        ahead = apart(name, share)
        if name in COLOURS and share >= 0.3 and ahead >= 0.1:
            found.append((ahead, f"mostly {name.lower()}"))
        elif name in ADJECTIVES and name not in _SHAPES and share >= 0.5 and ahead >= 0.2:
            found.append((0.7 * ahead, f"{ADJECTIVES[name]} pictures"))
        elif name in _SHAPES and share >= 0.6 and ahead >= 0.3:
            found.append((0.4 * ahead, f"{ADJECTIVES[name]} pictures"))
    yield from (text for _, text in sorted(found, key=lambda f: (-f[0], f[1])))


def look_words(brief: ClusterBrief) -> str:
    """What is true of most of the pictures, for a sentence: ``dark and mostly purple``."""
    telling = [
        n for n, share, lift in brief.attributes if share >= 0.6 and _telling(n, share, lift)
    ]
    qualities = [ADJECTIVES[n] for n in telling if n in ADJECTIVES and n not in _SHAPES][:2]
    colours = _main_colours(brief)
    if colours:
        qualities.append(f"mostly {listed(colours)}")
    text = listed(qualities)
    for name in telling:
        if name in LINES:
            return f"{text}, with {LINES[name]}" if text else f"full of {LINES[name]}"
    shapes = [f"in {in_sentence(n)}" for n in telling if n in _SHAPES]
    return ", ".join([text] * bool(text) + shapes[:1])


def colour_shares(brief: ClusterBrief) -> str:
    """How much the main colours cover: ``grey 41% and beige 18%``."""
    return listed([f"{name} {share:.0%}" for share, name in _colours(brief)[:3]])


def look_touches(brief: ClusterBrief) -> list[str]:
    """What some of the pictures have more than those of other groups: ``some red``."""
    names = {name: name.lower() for name in COLOURS} | ADJECTIVES
    return [
        f"some {names[name]}"
        for name, share, lift in brief.attributes
        if name in names and name not in _SHAPES and share < _LEAST_WORD_SHARE and lift >= 1.2
    ]


def _main_colours(brief: ClusterBrief) -> list[str]:
    """The one or two colours that cover half of the pictures or nearly so, else none."""
    found = _colours(brief)[:2]
    main = [name for share, name in found if share >= _LEAST_COLOURED]
    return main if sum(share for share, _ in found[: len(main)]) >= 0.45 else []


def _colours(brief: ClusterBrief) -> list[tuple[float, str]]:
    """(share, name in a sentence), largest first."""
    found = [(share, name.lower()) for name, share, _ in brief.attributes if name in COLOURS]
    return sorted(found, key=lambda colour: (-colour[0], colour[1]))


def _telling(name: str, share: float, lift: float) -> bool:
    """A shape tells something only where other groups have another."""
    return lift >= 1.3 if name in _SHAPES else lift >= 1.1 or share >= 0.7


def _up_to_two(words: Sequence[_Word]) -> list[tuple[_Word, ...]]:
    best = sorted(words, key=lambda word: (-word.weight, word.name))[:4]
    return [(), *((word,) for word in best), *combinations(best, 2)]


def _phrase(qualities: Sequence[_Word], colours: Sequence[_Word], noun: str) -> str:
    if not qualities and not colours and not noun:
        return ""
    order = list(ADJECTIVES)
    before = [ADJECTIVES[w.name] for w in sorted(qualities, key=lambda w: order.index(w.name))]
    names = [word.name.lower() for word in colours]
    if names == ["white", "black"]:
        names.reverse()
    words = [*before, *([listed(names)] if names else []), LINES.get(noun, "pictures")]
    return sentence_case(" ".join(words))
