"""Original pictures for a first run: ``python -m local.demo FOLDER`` draws a few hundred.

Twelve families that anybody tells apart, each picture drawn from its own random numbers, plus what
real folders hold: exact copies, a rotated photo and files that are no pictures.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Picture]

_SMOOTH = cv2.LINE_AA
WIDTH, HEIGHT = 480, 360
A_FAMILY = 25


def make_demo(folder: Path, *, seed: int = 7, a_family: int = A_FAMILY) -> int:
    """Draw the demo collection into ``folder``; returns how many files it wrote."""
    written = 0
    for name, draw in FAMILIES.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(a_family):
            rng = np.random.default_rng([seed, len(name), ord(name[0]), number])
            wide = rng.random() < 0.7
            size = (WIDTH, HEIGHT) if wide else (HEIGHT, WIDTH)
            picture = _grain(draw(rng, *size), rng)
            _save(place / f"{name}-{number + 1:02d}.jpg", picture)
            written += 1
    return written + _odd_files(folder)


def _odd_files(folder: Path) -> int:
    """Copies under other names and two files that are no pictures."""
    odd = folder / "odds and ends"
    odd.mkdir(exist_ok=True)
    first = sorted(folder.glob("*/*.jpg"))[:3]
    for path in first:
        (odd / f"copy of {path.name}").write_bytes(path.read_bytes())
    (odd / "notes.txt").write_text("Not every file in a folder is a picture.\n")
    (odd / "interrupted download.jpg").write_bytes(first[0].read_bytes()[:600])
    return len(first) + 2


def _save(path: Path, picture: Picture) -> None:
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise OSError(f"could not encode {path.name}")
    path.write_bytes(data.tobytes())


def _grain(picture: Picture, rng: np.random.Generator) -> Picture:
    """A little noise and a slight vignette, as a camera gives."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    shade = 1 - rng.uniform(0.05, 0.2) * (x**2 + y**2)[..., None] / 2
    noisy: Colour = picture * shade + rng.normal(0, rng.uniform(1, 4), picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _vertical(width: int, height: int, top: Colour, low: Colour) -> Picture:
    """A vertical gradient between two colours."""
    share = np.linspace(0, 1, height)[:, None, None]
    column = np.asarray(top)[None, None] * (1 - share) + np.asarray(low)[None, None] * share
    return np.repeat(np.clip(column, 0, 255), width, axis=1).astype(np.uint8)


def _near(rng: np.random.Generator, red: int, green: int, blue: int, by: int = 18) -> Colour:
    return np.clip(np.array([red, green, blue]) + rng.integers(-by, by + 1, 3), 0, 255).astype(
        float
    )


def _ink(colour: Colour) -> tuple[float, float, float]:
    return (float(colour[0]), float(colour[1]), float(colour[2]))


def _ridge(rng: np.random.Generator, width: int, level: float, rough: float) -> NDArray[np.int32]:
    """A mountain line as polygon points down to the bottom, from a few sine waves."""
    x = np.arange(width)
    y = np.full(width, level)
    for octave in range(1, 5):
        y += (
            rough
            / octave
            * np.sin(x / width * np.pi * 2 * octave * rng.uniform(0.7, 1.6) + rng.uniform(0, 6))
        )
    return np.stack([x, y], axis=1).astype(np.int32)


def _sunset(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = _vertical(width, height, _near(rng, 110, 50, 120), _near(rng, 255, 150, 60))
    horizon = int(height * rng.uniform(0.6, 0.75))
    sun = (int(width * rng.uniform(0.2, 0.8)), int(horizon - height * rng.uniform(0, 0.2)))
    cv2.circle(
        picture,
        sun,
        int(height * rng.uniform(0.08, 0.14)),
        _ink(_near(rng, 255, 225, 130)),
        -1,
        _SMOOTH,
    )
    picture[horizon:] = (picture[horizon:] * 0.35 + _near(rng, 60, 25, 50) * 0.5).astype(np.uint8)
    for _ in range(25):
        y = int(rng.integers(horizon, height))
        x = int(sun[0] + rng.normal(0, width * 0.06))
        cv2.line(picture, (x - 14, y), (x + 14, y), _ink(_near(rng, 255, 190, 110)), 1, _SMOOTH)
    return picture


def _night(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = _vertical(width, height, _near(rng, 6, 8, 30, 6), _near(rng, 20, 28, 70, 10))
    for _ in range(rng.integers(120, 220)):
        spot = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(
            picture,
            spot,
            int(rng.integers(0, 2)),
            _ink(_near(rng, 225, 225, 215, 30)),
            -1,
            _SMOOTH,
        )
    moon = (int(width * rng.uniform(0.15, 0.85)), int(height * rng.uniform(0.15, 0.45)))
    radius = int(height * rng.uniform(0.06, 0.1))
    cv2.circle(picture, moon, radius, (240, 238, 215), -1, _SMOOTH)
    shadow = (moon[0] + radius // 2, moon[1] - radius // 4)
    cv2.circle(picture, shadow, radius, _ink(picture[2, 2].astype(float)), -1, _SMOOTH)
    return picture


def _mountains(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = _vertical(width, height, _near(rng, 150, 195, 235), _near(rng, 225, 238, 245))
    for layer in range(4):
        level = height * (0.42 + 0.14 * layer)
        points = _ridge(rng, width, level, height * 0.07)
        shade = 1 - layer * 0.2
        colour = _near(rng, int(150 * shade), int(172 * shade), int(190 * shade), 8)
        floor = np.array([[width, height], [0, height]], np.int32)
        cv2.fillPoly(picture, [np.vstack([points, floor])], _ink(colour), _SMOOTH)
    return picture


def _meadow(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = _vertical(width, height, _near(rng, 90, 150, 50), _near(rng, 40, 105, 30))
    for _ in range(1400):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        tip = (x + int(rng.normal(0, 5)), y - int(rng.integers(8, 26)))
        cv2.line(picture, (x, y), tip, _ink(_near(rng, 70, 150, 45, 40)), 1, _SMOOTH)
    for _ in range(rng.integers(25, 60)):
        spot = (int(rng.integers(width)), int(rng.integers(height)))
        petal = _ink(_near(rng, 245, 240, 250, 10))
        for turn in range(6):
            angle = turn * np.pi / 3
            away = (spot[0] + int(5 * np.cos(angle)), spot[1] + int(5 * np.sin(angle)))
            cv2.circle(picture, away, 3, petal, -1, _SMOOTH)
        cv2.circle(picture, spot, 3, (250, 205, 40), -1, _SMOOTH)
    return picture


def _bricks(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = np.full((height, width, 3), _near(rng, 205, 195, 185, 8), np.uint8)
    tall = int(rng.integers(20, 30))
    long = int(tall * rng.uniform(2.2, 2.8))
    for row in range(height // tall + 1):
        start = -(long // 2) * (row % 2)
        for left in range(start, width, long):
            corner = (left + 2, row * tall + 2)
            end = (left + long - 2, (row + 1) * tall - 2)
            cv2.rectangle(picture, corner, end, _ink(_near(rng, 165, 70, 50, 22)), -1)
    return picture


def _chess(rng: np.random.Generator, width: int, height: int) -> Picture:
    side = int(rng.integers(32, 52))
    turned = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-30, 30)), 1.0)
    y, x = np.mgrid[0 : 2 * height, 0 : 2 * width]
    dark = ((x // side + y // side) % 2).astype(bool)
    board = np.where(dark[..., None], _near(rng, 25, 25, 28, 10), _near(rng, 240, 238, 232, 8))
    turned[:, 2] -= np.array([width / 2, height / 2])
    drawn = cv2.warpAffine(
        board.astype(np.uint8), turned, (width, height), borderMode=cv2.BORDER_WRAP
    )
    return np.asarray(drawn, np.uint8)


def _stripes(rng: np.random.Generator, width: int, height: int) -> Picture:
    angle = rng.uniform(0.5, 1.0)
    period = rng.uniform(26, 44)
    y, x = np.mgrid[0:height, 0:width]
    wave = (np.sin((x * np.cos(angle) + y * np.sin(angle)) / period * 2 * np.pi) > 0)[..., None]
    return np.where(wave, _near(rng, 235, 205, 60), _near(rng, 30, 90, 160)).astype(np.uint8)


def _bokeh(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = np.full((height, width, 3), _near(rng, 70, 20, 60, 10), np.uint8)
    for _ in range(rng.integers(30, 50)):
        layer = picture.copy()
        spot = (int(rng.integers(width)), int(rng.integers(height)))
        radius = int(rng.integers(14, 42))
        cv2.circle(layer, spot, radius, _ink(_near(rng, 240, 110, 190, 50)), -1, _SMOOTH)
        picture = cv2.addWeighted(layer, 0.45, picture, 0.55, 0).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 3), np.uint8)


def _waves(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = _vertical(width, height, _near(rng, 120, 205, 210), _near(rng, 10, 80, 110))
    for row in range(12):
        level = height * (row + 1) / 12
        points = _ridge(rng, width, level, height * 0.015)
        cv2.polylines(picture, [points], False, _ink(_near(rng, 225, 245, 245, 8)), 2, _SMOOTH)
    return picture


def _city(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = _vertical(width, height, _near(rng, 45, 50, 70, 8), _near(rng, 120, 110, 115, 10))
    left = 0
    while left < width:
        broad = int(rng.integers(36, 70))
        top = int(height * rng.uniform(0.15, 0.55))
        wall = _near(rng, 58, 58, 66, 14)
        cv2.rectangle(picture, (left, top), (left + broad, height), _ink(wall), -1)
        for y in range(top + 8, height - 6, 14):
            for x in range(left + 6, left + broad - 8, 12):
                lit = rng.random() < 0.55
                pane = _near(rng, 250, 215, 120, 10) if lit else wall * 0.7
                cv2.rectangle(picture, (x, y), (x + 5, y + 7), _ink(pane), -1)
        left += broad + int(rng.integers(0, 6))
    return picture


def _leaves(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = np.full((height, width, 3), _near(rng, 95, 60, 35, 10), np.uint8)
    for _ in range(170):
        spot = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(14, 30)), int(rng.integers(6, 12)))
        colour = _ink(
            _near(rng, *([(205, 95, 25), (180, 50, 25), (220, 150, 40)][rng.integers(3)]))
        )
        cv2.ellipse(picture, spot, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, _SMOOTH)
    return picture


def _snow(rng: np.random.Generator, width: int, height: int) -> Picture:
    picture = _vertical(width, height, _near(rng, 205, 215, 228, 8), _near(rng, 245, 248, 252, 4))
    for _ in range(rng.integers(5, 9)):
        x, base = int(rng.integers(width)), int(height * rng.uniform(0.7, 0.95))
        tall = int(height * rng.uniform(0.3, 0.5))
        for tier in range(3):
            top, low = base - tall + tier * tall // 4, base - tall + (tier + 2) * tall // 4
            half = int(tall * (0.12 + 0.08 * tier))
            tree = np.array([[x, top], [x - half, low], [x + half, low]], np.int32)
            cv2.fillPoly(picture, [tree], _ink(_near(rng, 35, 75, 65, 10)), _SMOOTH)
    for _ in range(140):
        spot = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(picture, spot, int(rng.integers(1, 4)), (255, 255, 255), -1, _SMOOTH)
    return picture


FAMILIES: dict[str, Draw] = {
    "autumn": _leaves,
    "bokeh": _bokeh,
    "bricks": _bricks,
    "chess": _chess,
    "city": _city,
    "meadow": _meadow,
    "mountains": _mountains,
    "night": _night,
    "snow": _snow,
    "stripes": _stripes,
    "sunset": _sunset,
    "waves": _waves,
}

if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/photos")
    print(f"{make_demo(where)} files drawn into {where}")
