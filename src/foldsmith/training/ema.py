"""Moving average of a model's weights."""

from typing import Any

from torch import nn


class ModelEma:
    """Exponential moving average (EMA) of the weights (Polyak & Juditsky 1992), or none.

    The average is timm's: of every floating-point entry of the ``state_dict``, the running
    statistics of BatchNorm included; counters are copied. Its decay grows with the number of
    optimizer steps t, ``min(decay, 1 - t^(-2/3))``, so that a short training does not end on
    an average that still holds its random start: 0.95 after a hundred steps, 0.99 after a
    thousand, 0.999 after thirty thousand.

    Args:
        model: The trained model, on its device; the average starts as a copy.
        decay: Fraction of the old average that stays at each step, in 0..1; null for no average.

    Attributes:
        module: The module to validate and keep: the average, or the model itself.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        # Here, not above: timm takes a second to import, and most commands need none of it.
        from timm.utils.model_ema import ModelEmaV3

        self._model = model
        self._ema = None if decay is None else ModelEmaV3(model, decay, use_warmup=True)
        self._steps = 0
        self.module: nn.Module = model if self._ema is None else self._ema.module

    def update(self) -> None:
        """Move the average towards the model; called after each optimizer step."""
        if self._ema is not None:
            self._steps += 1
            self._ema.update(self._model, self._steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and its number of steps; empty if there is none."""
        if self._ema is None:
            return {}
        return {"module": self._ema.module.state_dict(), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        if self._ema is not None:
            self._ema.module.load_state_dict(state["module"])
            self._steps = state["steps"]
