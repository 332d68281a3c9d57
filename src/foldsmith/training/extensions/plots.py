"""Curves of the log."""

import time
from typing import Any

from pytorch_pfn_extras.training import extension

from foldsmith.targets.metrics import Metric

# Seconds of pause after a drawing for each second that it took, so that a figure costs a training
# at most a hundredth of its time.
_PAUSE = 100.0
# Seconds before the first one: a short training draws at its end alone.
_FIRST_S = 10.0


class LearningCurve(extension.Extension):
    """Draws logged values over the epochs, at most ten times per training and at its end.

    The stock PlotReport draws again at every epoch, which costs a small training more time
    than its validation.

    Args:
        y_keys: Keys of the log.
        filename: PNG in the output folder.
        max_epoch: Number of epochs of the training.
        mark_best: Key whose best value is marked, or null.
        metric: Says which values are better; null for a loss, of which lower ones are.
    """

    trigger = (1, "epoch")
    priority = extension.PRIORITY_READER - 10

    def __init__(
        self,
        y_keys: list[str],
        filename: str,
        max_epoch: int,
        mark_best: str | None = None,
        metric: Metric | None = None,
    ) -> None:
        self.name = f"plot {filename}"
        self.y_keys = y_keys
        self.filename = filename
        self.max_epoch = max_epoch
        self.mark_best = mark_best
        self.greater_is_better = metric is not None and metric.greater_is_better
        self._next = time.monotonic() + _FIRST_S

    def __call__(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Draw, if it is time; called by the manager at the end of an epoch."""
        every = max(1, self.max_epoch // 10)
        begun = time.monotonic()
        if (manager.epoch % every or begun < self._next) and manager.epoch != self.max_epoch:
            return
        self._draw(manager)
        self._next = time.monotonic() + _PAUSE * (time.monotonic() - begun)

    def _draw(self, manager: extension.ExtensionsManagerProtocol) -> None:
        # Here, not above: commands that draw nothing need not wait for matplotlib.
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        log = manager.get_extension("LogReport").log
        if not any(key in entry for entry in log for key in self.y_keys):
            return  # nothing yet: a probe looks only now and then
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for key in self.y_keys:
            points = [(entry["epoch"], entry[key]) for entry in log if key in entry]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, marker="." if len(points) < 40 else None, label=key)
            if key == self.mark_best:
                choose = max if self.greater_is_better else min
                best = choose(range(len(values)), key=values.__getitem__)
                axes.plot(epochs[best], values[best], "o", mfc="none", ms=9, color="black")
                axes.annotate(
                    f"{values[best]:.4f} (epoch {epochs[best]})",
                    (epochs[best], values[best]),
                    textcoords="offset points",
                    xytext=(0, 10),
                    # Towards the middle of the picture, so that the text stays inside.
                    ha="left" if best < len(values) / 2 else "right",
                )
                axes.margins(y=0.15)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()

        def save(target: Figure, file: Any) -> None:
            target.savefig(file, format="png", dpi=100)

        writer: Any = manager.writer
        writer(self.filename, manager.out, figure, savefun=save)
