"""A plain network on labelled images within a time limit: `plain_network.py SET --seconds T`.

A single network by the literature on small data: a wide residual
network (Zagoruyko and Komodakis 2016), crops, mirrors, CutMix for classes, one cycle of SGD or
AdamW, the mean of a few folds' models. No pretraining, no choice by scores. It uses nothing of
foldsmith. One thread per fold, as many folds at a time as there are cores; the learning rate
follows the clock, so that all ends in time whatever else the machine does.

SET is a folder as benchmarks/hidden_sets.py writes it. Predictions go into --out, facts to stdout.
"""

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# Waiting threads of OpenMP would take a core from the other fold; read when torch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from torch import nn

Floats = npt.NDArray[np.float32]

# Seconds at the end for predictions of the last folds, the table and the end of the processes.
_RESERVE_S = 2.0
_MOST_FOLDS = 6


@dataclass(frozen=True)
class Job:
    """One fold.

    Attributes:
        images: Labelled images, uint8, (n, big, big, 3).
        targets: Standardised numbers (n, 1), or classes one-hot, (n, n_classes).
        inside: Rows to train on.
        outside: Rows to predict.
        hidden: Images to predict, uint8.
        mirror: none, left-right or all.
        seed: Seed of everything.
        end: Time at which all folds must have ended, as `time.time()`.
        rounds: Rounds of folds that are left, this one included; it takes its part of the time.
    """

    images: npt.NDArray[np.uint8]
    targets: Floats
    inside: npt.NDArray[np.int64]
    outside: npt.NDArray[np.int64]
    hidden: npt.NDArray[np.uint8]
    mirror: str
    seed: int
    end: float
    rounds: int


class Residual(nn.Module):
    """Two convolutions after normalisation and ReLU, beside a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(n_in), nn.ReLU(inplace=True))
        self.convolutions = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
        )
        changes = n_in != n_out
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        ready = self.before(x)
        past: torch.Tensor = x if self.shortcut is None else self.shortcut(ready)
        return past + self.convolutions(ready)


def wide_network(stem_stride: int, n_outputs: int) -> nn.Module:
    """Return WRN-16-2, whose last layer begins at 0."""
    parts: list[nn.Module] = [nn.Conv2d(3, 16, 3, stem_stride, 1, bias=False)]
    n_in = 16
    for n_out, stride in ((32, 1), (64, 2), (128, 2)):
        parts += [Residual(n_in, n_out, stride), Residual(n_out, n_out, 1)]
        n_in = n_out
    last = nn.Linear(n_in, n_outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    end = [nn.BatchNorm2d(n_in), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last]
    return nn.Sequential(*parts, *end).to(memory_format=torch.channels_last)


def view(images: torch.Tensor, side: int, mirror: str, random: np.random.Generator) -> torch.Tensor:
    """Return a random crop of each image, mirrored or not: (n, 3, side, side)."""
    room = images.shape[-1] - side + 1
    out = torch.empty(len(images), 3, side, side).to(memory_format=torch.channels_last)
    for k, image in enumerate(images):
        top, left = random.integers(room, size=2)
        one = image[:, top : top + side, left : left + side]
        across, down, turned = random.random(3) < 0.5
        axes = [axis for axis, flip in ((2, across), (1, down and mirror == "all")) if flip]
        if mirror != "none":
            one = one.flip(axes)
        out[k] = one.transpose(1, 2) if turned and mirror == "all" else one
    return out


def cut_mixed(
    images: torch.Tensor, targets: torch.Tensor, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images with a square of another one each, targets by area (Yun et al. 2019)."""
    side = images.shape[-1]
    cut = int(side * np.sqrt(random.random()))
    top, left = random.integers(side - cut + 1, size=2)
    other = torch.randperm(len(images))
    square = (..., slice(top, top + cut), slice(left, left + cut))
    mixed = images.clone()
    mixed[square] = images[other][square]
    share = cut * cut / side**2
    return mixed, targets * (1 - share) + targets[other] * share


def predicted(model: nn.Module, images: torch.Tensor, side: int, mirror: str) -> torch.Tensor:
    """Return the mean over mirrored views of the middle of each image, (n, n_outputs)."""
    start = (images.shape[-1] - side) // 2
    middle = images[:, :, start : start + side, start : start + side]
    flips = {"none": [()], "left-right": [(), (3,)], "all": [(), (3,), (2,), (2, 3)]}[mirror]
    model.eval()
    found = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for batch in middle.split(128):
            outputs = [model(batch.flip(axes) if axes else batch).float() for axes in flips]
            if outputs[0].shape[1] > 1:
                outputs = [each.softmax(1) for each in outputs]
            found.append(torch.stack(outputs).mean(0))
    model.train()
    return torch.cat(found)


def rate(progress: float, highest: float) -> float:
    """Return the learning rate of one cycle: up in the first twentieth, then half a cosine."""
    if progress < 0.05:
        return highest * (0.04 + 0.96 * progress / 0.05)
    return highest * 0.5 * (1 + np.cos(np.pi * min(1.0, (progress - 0.05) / 0.95)))


def train(job: Job) -> tuple[Floats, Floats, float]:
    """Train one fold; return predictions of its rows and of the hidden ones, and its epochs."""
    started = time.time()
    end = started + (job.end - started) / job.rounds
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    random = np.random.default_rng(job.seed)
    big = job.images.shape[1]
    side = big * 8 // 9
    inside = job.images[job.inside]
    mean = inside.mean((0, 1, 2), dtype=np.float64)
    spread = inside.std((0, 1, 2), dtype=np.float64) + 1e-6

    def tensor(images: npt.NDArray[np.uint8]) -> torch.Tensor:
        normal = ((images - mean) / spread).astype(np.float32)
        return torch.from_numpy(normal).permute(0, 3, 1, 2)

    x, y = tensor(inside), torch.from_numpy(job.targets[job.inside])
    classes = y.shape[1] > 1
    model = wide_network(1 if side <= 32 else 2, y.shape[1])
    optimizer: torch.optim.Optimizer
    if classes:
        highest = 0.05
        optimizer = torch.optim.SGD(
            model.parameters(), highest, momentum=0.9, nesterov=True, weight_decay=5e-3
        )
    else:
        highest = 1e-3
        optimizer = torch.optim.AdamW(model.parameters(), highest, weight_decay=0.05)
    outside, hidden = tensor(job.images[job.outside]), tensor(job.hidden)
    # Once unmeasured: the first call of a network prepares its kernels.
    predicted(model, outside[:128], side, job.mirror)
    began = time.time()
    predicted(model, outside[:128], side, job.mirror)
    per_image = (time.time() - began) / min(128, len(outside))
    began = time.time()
    last = end - 1.2 * per_image * (len(outside) + len(hidden))
    n_seen, batch = 0, min(25 if classes else 32, len(x))
    if last <= began:
        raise SystemExit(
            f"--seconds is too short: predictions take {end - last:.1f} s of {end - began:.1f}"
        )
    while time.time() < last:
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].view(-1, batch):
            progress = (time.time() - began) / (last - began)
            if progress >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate(progress, highest)
            images, targets = view(x[rows], side, job.mirror, random), y[rows]
            if classes and random.random() < 0.5:
                images, targets = cut_mixed(images, targets, random)
            with torch.autocast("cpu", torch.bfloat16):
                outputs = model(images).float()
            wrong = F.cross_entropy(outputs, targets) if classes else F.mse_loss(outputs, targets)
            optimizer.zero_grad()
            wrong.backward()
            optimizer.step()
            n_seen += batch
    of_outside = predicted(model, outside, side, job.mirror).numpy()
    return of_outside, predicted(model, hidden, side, job.mirror).numpy(), n_seen / len(x)


def read(folder: Path, names: pd.Series, big: int) -> npt.NDArray[np.uint8]:
    """Return images as squares, RGB, (n, big, big, 3)."""
    files = {path.stem: path for path in folder.iterdir()}
    out = np.empty((len(names), big, big, 3), np.uint8)
    for k, name in enumerate(names):
        image = cv2.cvtColor(cv2.imread(str(files[name])), cv2.COLOR_BGR2RGB)
        how = cv2.INTER_AREA if min(image.shape[:2]) > big else cv2.INTER_LINEAR
        out[k] = cv2.resize(image, (big, big), interpolation=how)
    return out


def main() -> None:
    """Train the folds, write the predictions of the hidden rows."""
    started = time.time()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", action="store_true")
    parser.add_argument("--mirror", default="left-right", choices=["none", "left-right", "all"])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = pd.read_csv(options.set / "train.csv", dtype={"image_id": str})
    test = pd.read_csv(options.set / "test.csv", dtype={"image_id": str})
    big = options.side * 9 // 8
    images = read(options.set / "images", table["image_id"], big)
    hidden = read(options.set / "images", test["image_id"], big)
    raw = table["target"].to_numpy()
    if options.classes:
        names, codes = np.unique(raw.astype(str), return_inverse=True)
        targets = np.eye(len(names), dtype=np.float32)[codes]
    else:
        targets = ((raw - raw.mean()) / raw.std()).astype(np.float32)[:, None]
    groups = table["group"].to_numpy() if "group" in table else None
    # Folds come in rounds of one per core: a last round of fewer would leave cores idle.
    workers = len(os.sched_getaffinity(0))
    most = _MOST_FOLDS if groups is None else min(_MOST_FOLDS, len(np.unique(groups)))
    workers = min(workers, most)
    n_folds = max(2, most // workers * workers)
    splits = [
        (inside, outside)
        for inside, outside in splitter(n_folds, options.classes, groups is not None).split(
            raw, codes if options.classes else None, groups
        )
    ]
    rounds = -(-n_folds // workers)
    end = started + options.seconds - _RESERVE_S
    jobs = [
        Job(
            *(images, targets, inside, outside, hidden, options.mirror, options.seed * 100 + k),
            *(end, rounds - k // workers),
        )
        for k, (inside, outside) in enumerate(splits)
    ]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        found = list(pool.map(train, jobs))
    mean = np.mean([of_hidden for _, of_hidden, _ in found], axis=0)
    oof = np.empty_like(targets)
    for (_, outside), (of_outside, _, _) in zip(splits, found, strict=True):
        oof[outside] = of_outside
    if options.classes:
        values, score = names[mean.argmax(1)], float((oof.argmax(1) == codes).mean())
    else:
        values, numbers = (
            (each[:, 0] * raw.std() + raw.mean()).clip(raw.min(), raw.max()) for each in (mean, oof)
        )
        score = float(np.sqrt(np.mean((numbers - raw) ** 2)))
    test.assign(target=values).to_csv(options.out, index=False)
    epochs = [epochs for _, _, epochs in found]
    print(json.dumps({"oof": score, "folds": n_folds, "epochs": float(np.mean(epochs))}))


def splitter(
    n_folds: int, classes: bool, grouped: bool
) -> KFold | GroupKFold | StratifiedKFold | StratifiedGroupKFold:
    """Return the division into folds."""
    if classes:
        kind = StratifiedGroupKFold if grouped else StratifiedKFold
        return kind(n_folds, shuffle=True, random_state=0)
    return GroupKFold(n_folds) if grouped else KFold(n_folds, shuffle=True, random_state=0)


if __name__ == "__main__":
    main()
