"""A head on frozen features that gives a number by a small network."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.models.feature_heads import weighted_variance
from foldsmith.models.fitted_arrays import Arrays
from foldsmith.models.fitted_heads import Features, FittedNetwork, Targets, fitted_standardiser
from foldsmith.models.runtime import seed_everything


@dataclass(frozen=True)
class MLPHead:
    """A hidden layer with dropout on standardised features, trained for a fixed time on a CPU.

    Attributes:
        hidden: Width of the hidden layer.
        dropout: Share of features and of hidden units that a step leaves out, 0..1.
        epochs: Passes over the training folds.
        batch_size: Images per step.
        lr: Learning rate at its height (one cycle, AdamW).
        weight_decay: Weight decay.
    """

    hidden: int = 256
    dropout: float = 0.5
    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedNetwork:
        """Train on the squared error of standardised targets."""
        seed_everything(seed)
        scaler = fitted_standardiser(features, weights)
        inputs = torch.from_numpy(scaler.transform(features).astype(np.float32))
        # Equal targets leave nothing to scale.
        mean = float(np.average(targets, weights=weights))
        scale = math.sqrt(weighted_variance(targets, weights)) if np.ptp(targets) else 1.0
        importance = None if weights is None else torch.from_numpy(weights.astype(np.float32))
        wanted = torch.from_numpy(((targets - mean) / scale).astype(np.float32))
        model = nn.Sequential(
            nn.Dropout(self.dropout),
            nn.Linear(inputs.shape[1], self.hidden),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, 1),
        )
        optimizer = torch.optim.AdamW(model.parameters(), self.lr, weight_decay=self.weight_decay)
        steps = -(-len(inputs) // self.batch_size) * self.epochs
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(inputs)), self.batch_size):
                outputs = model(inputs[rows])[:, 0]
                if importance is None:
                    loss = nn.functional.mse_loss(outputs, wanted[rows])
                else:
                    loss = (importance[rows] * (outputs - wanted[rows]) ** 2).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
        hidden, hidden_bias, output, output_bias = (
            parameter.detach().numpy() for parameter in model.parameters()
        )
        return FittedNetwork(
            mean=scaler[0].mean_,
            scale=scaler[0].scale_,
            hidden=hidden,
            hidden_bias=hidden_bias,
            output=output,
            output_bias=output_bias,
            target_mean=mean,
            target_scale=scale,
        )

    def restore(self, arrays: Arrays) -> FittedNetwork:
        """Return the network."""
        return FittedNetwork(**arrays)
