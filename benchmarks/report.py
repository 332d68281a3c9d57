"""What every benchmark leaves: a table on the screen, JSON and a plot."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import timm
import torch

import foldsmith

mpl.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path("build/bench")


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "foldsmith": foldsmith.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "opencv": cv2.__version__,
    }


def write(name: str, results: Sequence[dict[str, Any]]) -> None:
    """Write results as JSON, with the machine they are from."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "results": list(results)}, indent=2) + "\n")
    print(f"wrote {path}")


def bars(name: str, title: str, groups: dict[str, dict[str, float]], unit: str) -> None:
    """Draw one group of bars per case, a bar per contender."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    contenders = list(dict.fromkeys(c for group in groups.values() for c in group))
    figure, axes = plt.subplots(1, len(groups), figsize=(3.2 * len(groups), 3.6), squeeze=False)
    for axis, (case, values) in zip(axes[0], groups.items(), strict=True):
        for contender, value in values.items():
            k = contenders.index(contender)
            bar = axis.barh(contender, value, color=f"C{k}")
            axis.bar_label(bar, fmt="%.4g", padding=2, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(case, fontsize=9)
        axis.set_xlabel(unit, fontsize=8)
        axis.set_xlim(0, 1.25 * max(values.values()))
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.png", dpi=150)
    plt.close(figure)
    print(f"wrote {FOLDER / name}.png")
