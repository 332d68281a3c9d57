"""Generate a small artwork-like data set in the layout of atmaCup #11.

The pictures are procedural and seeded. Their style drifts with the date - palette, contrast,
brush, hatching, composition - and each cue is noisy, so that the century can be learned from
an image, but not perfectly. The label is in a picture only through that style.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

MARKER = "GENERATED.txt"
# Shares of the four centuries among the competition's labelled works: 475 / 896 / 1511 / 1055.
CLASS_SHARES = np.array([475, 896, 1511, 1055]) / 3937
FIRST_YEAR, LAST_YEAR = 1440, 1900
# About one series in thirty has several works (118 of 3,784).
MULTIPLE_SHARE = 0.04
GENRES = ("portrait", "landscape", "still life", "ornament", "print")
# How likely each genre is at the first and the last date.
GENRES_EARLY = np.array([0.34, 0.10, 0.06, 0.25, 0.25])
GENRES_LATE = np.array([0.20, 0.34, 0.18, 0.04, 0.24])
# Per genre, from what is common early to what is common late.
MATERIALS = {
    "portrait": ["tempera", "panel", "oil paint", "canvas"],
    "landscape": ["panel", "oil paint", "canvas", "watercolour"],
    "still life": ["panel", "oil paint", "canvas", "chalk"],
    "ornament": ["parchment", "gold leaf", "tempera", "panel"],
    "print": ["laid paper", "ink", "paper", "chalk"],
}
TECHNIQUES = {
    "portrait": ["glazing", "painting", "brush"],
    "landscape": ["drawing", "painting", "washing"],
    "still life": ["drawing", "painting", "brush"],
    "ornament": ["illumination", "gilding", "brush"],
    "print": ["woodcut", "engraving", "etching", "lithography"],
}

Picture = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Work:
    """One work before it is painted.

    Attributes:
        year: Date.
        genre: One of :data:`GENRES`.
        series: Number of its series.
        motif: Seed shared by the works of a series.
    """

    year: int
    genre: str
    series: int
    motif: int


def make_demo_data(
    output: Path, n_train: int = 400, n_test: int = 200, seed: int = 1086, long_side: int = 224
) -> None:
    """Write images and tables; the same arguments give the same bytes.

    Args:
        output: Folder to write to.
        n_train: Labelled images, at least 40.
        n_test: Images to predict.
        seed: Seed of everything.
        long_side: Longer side of every image in px.
    """
    marker = output / MARKER
    if (output / "train.csv").exists() and not marker.exists():
        raise SystemExit(f"{output}: holds a train.csv that was not generated; name another folder")
    (output / "photos").mkdir(parents=True, exist_ok=True)
    marker.write_text(
        "These images and tables are generated, not the competition's data.\n"
        f"train {n_train}, test {n_test}, seed {seed}, long side {long_side}\n"
    )
    rng = np.random.default_rng([seed, 0])
    works = plan_works(n_train + n_test, rng)
    order = choose_train(works, n_train, rng)
    ids, series_ids = hex_ids(len(works), rng), hex_ids(len(works), rng)

    for k, work in enumerate(works):
        image = paint(work, long_side, np.random.default_rng([seed, 1, k]))
        path = output / "photos" / f"{ids[k]}.jpg"
        cv2.imwrite(str(path), image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])

    train = sorted(order[:n_train], key=lambda k: ids[k])
    test = sorted(order[n_train:], key=lambda k: ids[k])
    table = pd.DataFrame(
        {
            "object_id": [ids[k] for k in train],
            "sorting_date": [works[k].year for k in train],
            "art_series_id": [series_ids[works[k].series] for k in train],
            "target": [target_of(works[k].year) for k in train],
        }
    )
    table.to_csv(output / "train.csv", index=False)
    pd.DataFrame({"object_id": [ids[k] for k in test]}).to_csv(output / "test.csv", index=False)
    pd.DataFrame({"target": np.zeros(n_test, dtype=int)}).to_csv(
        output / "atmaCup#11_sample_submission.csv", index=False
    )
    for name, words in (("materials", MATERIALS), ("techniques", TECHNIQUES)):
        rows = describe([(ids[k], works[k]) for k in train], words, rng)
        rows.to_csv(output / f"{name}.csv", index=False)
    counts = table["target"].value_counts().sort_index().to_dict()
    print(f"generated {n_train} labelled images (by century {counts}) and {n_test} more")


def hex_ids(n: int, rng: np.random.Generator) -> list[str]:
    """Draw ids of 20 hexadecimal digits."""
    return [bytes(row).hex() for row in rng.integers(0, 256, (n, 10), dtype=np.uint8)]


def target_of(year: int) -> int:
    """Return the competition's target of a year: the century from 1500 on, 0 to 3."""
    return int(np.clip((year - 1) // 100 - 15, 0, 3))


def plan_works(n: int, rng: np.random.Generator) -> list[Work]:
    """Draw years, genres and series of ``n`` works."""
    works: list[Work] = []
    series = 0
    while len(works) < n:
        century = int(rng.choice(4, p=CLASS_SHARES))
        low = FIRST_YEAR if century == 0 else 1501 + 100 * century
        year = int(rng.integers(low, min(1601 + 100 * century, LAST_YEAR + 1)))
        late = (year - FIRST_YEAR) / (LAST_YEAR - FIRST_YEAR)
        genre = str(rng.choice(GENRES, p=GENRES_EARLY * (1 - late) + GENRES_LATE * late))
        motif = int(rng.integers(2**31))
        size = int(rng.integers(2, 7)) if rng.random() < MULTIPLE_SHARE else 1
        for _ in range(min(size, n - len(works))):
            dated = int(np.clip(year + rng.integers(-6, 7), FIRST_YEAR, LAST_YEAR))
            works.append(Work(dated if size > 1 else year, genre, series, motif))
        series += 1
    return works


def choose_train(works: list[Work], n_train: int, rng: np.random.Generator) -> list[int]:
    """Return the order of the works, the labelled ones first, with every century among them."""
    order = [int(k) for k in rng.permutation(len(works))]
    by_class: dict[int, list[int]] = {c: [] for c in range(4)}
    for k in order:
        by_class[target_of(works[k].year)].append(k)
    # Folds need a few members of every class, also in a very small data set.
    first = [k for members in by_class.values() for k in members[: min(8, n_train // 4)]]
    chosen = set(first)
    return (first + [k for k in order if k not in chosen])[: len(works)]


def describe(
    works: list[tuple[str, Work]], words: dict[str, list[str]], rng: np.random.Generator
) -> pd.DataFrame:
    """Draw names for works: several rows per work, some twice, some works without any."""
    rows = []
    for object_id, work in works:
        if rng.random() < 0.05:
            continue
        late = (work.year - FIRST_YEAR) / (LAST_YEAR - FIRST_YEAR)
        names = words[work.genre]
        # Names near the work's date in the genre's list are likely, those far from it are rare.
        weights = np.exp(-(((np.linspace(0, 1, len(names)) - late) / 0.7) ** 2))
        chosen = rng.choice(names, size=int(rng.integers(1, 4)), p=weights / weights.sum())
        rows += [{"name": str(name), "object_id": object_id} for name in chosen]
    return pd.DataFrame(rows, columns=["name", "object_id"])


def paint(work: Work, long_side: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Paint one work and photograph it.

    Args:
        work: What to paint.
        long_side: Longer side in px.
        rng: The picture's own generator.

    Returns:
        RGB, uint8, shape (H, W, 3).
    """
    motif = np.random.default_rng(work.motif)
    late = (work.year - FIRST_YEAR) / (LAST_YEAR - FIRST_YEAR)

    def style(spread: float = 0.2) -> float:
        """Return the date on a scale of 0..1 as one cue shows it: near the truth, seldom at it."""
        return float(np.clip(late + motif.normal(0, spread), 0, 1))

    height, width = size_of(work.genre, long_side, motif)
    picture = compose(work.genre, height, width, style, motif, rng)
    picture = brushwork(picture, style(), rng)
    if work.genre == "print":
        picture = engrave(picture, style(), rng)
    elif motif.random() < 0.12:  # reproductions in grey of any century
        picture = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    return photograph(picture, style(), rng)


def size_of(genre: str, long_side: int, motif: np.random.Generator) -> tuple[int, int]:
    """Draw height and width: the longer side fixed, the shorter mostly about 0.72 of it."""
    short = int(np.clip(motif.normal(0.72, 0.13), 35 / 224, 1.0) * long_side)
    upright = motif.random() < {"portrait": 0.9, "landscape": 0.1}.get(genre, 0.55)
    return (long_side, short) if upright else (short, long_side)


def palette(age: float, motif: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return five colours, dark to light: gold and red early, brown, then blue and pale."""
    anchors = np.array(
        [
            [[60, 25, 20], [120, 45, 30], [165, 115, 40], [205, 165, 75], [235, 215, 160]],
            [[35, 25, 18], [80, 55, 35], [125, 90, 55], [170, 135, 90], [220, 195, 150]],
            [[40, 42, 40], [85, 90, 75], [130, 135, 115], [175, 180, 165], [222, 220, 205]],
            [[40, 50, 75], [80, 105, 130], [125, 155, 150], [185, 195, 175], [238, 232, 218]],
        ],
        dtype=np.float32,
    )
    place = age * (len(anchors) - 1)
    low = min(int(place), len(anchors) - 2)
    colours = anchors[low] + (place - low) * (anchors[low + 1] - anchors[low])
    varied: npt.NDArray[np.float32] = colours + motif.normal(0, 14, colours.shape)
    return varied.astype(np.float32)


def noise_field(height: int, width: int, cells: float, rng: np.random.Generator) -> Picture:
    """Return smooth noise of about ``cells`` bumps along the longer side, mean 0, std about 1."""
    scale = cells / max(height, width)
    small = rng.normal(size=(max(2, round(height * scale)), max(2, round(width * scale))))
    return cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def compose(
    genre: str,
    height: int,
    width: int,
    style: Any,
    motif: np.random.Generator,
    rng: np.random.Generator,
) -> Picture:
    """Lay out the large shapes of a genre."""
    colours = palette(style(), motif)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    picture = np.empty((height, width, 3), np.float32)
    if genre == "landscape":
        # The horizon sinks with time: from a world seen from above to wide skies.
        horizon = 0.30 + 0.35 * style() + 0.04 * noise_field(height, width, 5, motif)
        sky = colours[4] + (colours[3] - colours[4]) * y[..., None]
        ground = colours[2] + (colours[0] - colours[2]) * ((y - horizon) * 1.6)[..., None]
        picture[:] = np.where((y < horizon)[..., None], sky, ground)
        for _ in range(int(motif.integers(1, 5))):
            blob(picture, motif, colours[int(motif.integers(0, 2))], 0.45, 0.95, 0.05, 0.16)
    elif genre == "portrait":
        dark = np.clip(1.0 - 0.8 * style(), 0.1, 1)
        picture[:] = colours[0] * dark + colours[2] * (1 - dark)
        cx, cy = motif.normal(0.5, 0.05), motif.normal(0.38, 0.04)
        shoulders = ((x - cx) / 0.42) ** 2 + ((y - 1.05) / 0.42) ** 2 < 1
        picture[shoulders] = colours[1]
        head = ((x - cx) / 0.17) ** 2 + ((y - cy) / 0.2) ** 2
        lit = (1 - np.clip(head, 0, 1)) * (0.7 + 0.5 * (x - cx))
        picture += (
            (colours[4] - picture) * np.clip(lit * 2.2, 0, 1)[..., None] * (head < 1)[..., None]
        )
    elif genre == "still life":
        table = motif.uniform(0.5, 0.7)
        picture[:] = np.where((y < table)[..., None], colours[1], colours[3])
        for _ in range(int(motif.integers(3, 9))):
            blob(picture, motif, colours[int(motif.integers(0, 5))], 0.4, 0.85, 0.06, 0.2)
    elif genre == "ornament":
        waves = np.sin(2 * np.pi * x * motif.integers(2, 7)) * np.sin(
            2 * np.pi * y * motif.integers(2, 7)
        )
        picture[:] = np.where((waves > motif.uniform(-0.3, 0.3))[..., None], colours[3], colours[1])
        edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) < 0.06
        picture[edge] = colours[2]
    else:
        picture[:] = colours[4]
        for _ in range(int(motif.integers(4, 11))):
            blob(picture, motif, colours[int(motif.integers(0, 4))], 0.1, 0.95, 0.06, 0.25)
    # The works of a series are alike, not the same.
    shade = 10 * noise_field(height, width, 3, rng)
    result: Picture = picture + shade[..., None]
    return result


def blob(
    picture: Picture,
    motif: np.random.Generator,
    colour: npt.NDArray[np.float32],
    top: float,
    bottom: float,
    small: float,
    large: float,
) -> None:
    """Draw a filled ellipse, its centre between ``top`` and ``bottom`` of the height."""
    height, width = picture.shape[:2]
    centre = (int(motif.uniform(0.1, 0.9) * width), int(motif.uniform(top, bottom) * height))
    longer = max(height, width)
    axes = tuple(max(1, int(motif.uniform(small, large) * longer)) for _ in range(2))
    angle = float(motif.uniform(0, 180))
    cv2.ellipse(picture, centre, axes, angle, 0, 360, [float(c) for c in colour], -1, cv2.LINE_AA)


def brushwork(picture: Picture, age: float, rng: np.random.Generator) -> Picture:
    """Add the brush: fine and smooth early, broad and visible late."""
    height, width = picture.shape[:2]
    fine = 9 * (1.15 - age) * noise_field(height, width, 90, rng)
    broad = 13 * age * noise_field(height, width, 22, rng)
    softened = cv2.GaussianBlur(picture, (0, 0), 0.5 + 1.6 * (1 - age) * max(height, width) / 224)
    painted: Picture = softened + (fine + broad)[..., None]
    return painted


def engrave(picture: Picture, age: float, rng: np.random.Generator) -> Picture:
    """Turn a picture into a print: hatching lines on toned paper, finer and greyer with time."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grey = picture.mean(axis=2) / 255
    angle = rng.uniform(0.2, 1.2)
    period = (6.5 - 3.5 * age) * max(height, width) / 224
    lines = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / max(period, 2.0))
    cross = np.sin(2 * np.pi * (x * np.sin(angle) - y * np.cos(angle)) / max(period, 2.0))
    hatched = np.where(grey < 0.35, np.minimum(lines, cross), lines)
    ink = np.clip((hatched * 0.5 + 0.5) * 0.75 + grey * (0.5 + 0.4 * age), 0, 1)
    paper = np.array([232, 216 + 12 * age, 180 + 42 * age], np.float32) + rng.normal(0, 6)
    printed: Picture = (paper * (0.18 + 0.82 * ink[..., None])).astype(np.float32)
    return printed


def photograph(picture: Picture, age: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Age the surface and take the image: craquelure, vignette, cast, exposure, grain."""
    height, width = picture.shape[:2]
    cracks = np.abs(noise_field(height, width, 45, rng)) < 0.035
    picture = picture - (22 * (1 - age) * cracks)[..., None]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    vignette = 1 - rng.uniform(0, 0.25) * (x**2 + y**2)
    cast = 1 + rng.normal(0, 0.07, 3)
    mean = picture.mean()
    contrast = (1.15 - 0.3 * age) * rng.uniform(0.8, 1.2)
    exposed = ((picture - mean) * contrast + mean) * vignette[..., None] * cast
    exposed = exposed * rng.uniform(0.82, 1.18) + rng.normal(0, 3, picture.shape)
    return np.clip(exposed, 0, 255).astype(np.uint8)


def main() -> None:
    """Read the command line and generate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1086)
    parser.add_argument("--long-side", type=int, default=224)
    arguments = parser.parse_args()
    make_demo_data(
        arguments.output, arguments.train, arguments.test, arguments.seed, arguments.long_side
    )


if __name__ == "__main__":
    main()
