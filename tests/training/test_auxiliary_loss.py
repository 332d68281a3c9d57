import numpy as np
import pytest
import torch
from torch import nn

from foldsmith.data.datasets import Batch
from foldsmith.models.classifier import ImageModel
from foldsmith.targets.auxiliary import AuxiliaryTargets
from foldsmith.targets.regression import Regression
from foldsmith.training.auxiliary import AuxiliaryLoss
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.training.mixing import Mixup

NAN = np.nan
TARGETS = {
    "date": AuxiliaryTargets(np.array([[0.5], [NAN], [-1]], np.float32), ("year",), "mse_loss"),
    "words": AuxiliaryTargets(
        np.array([[1, 0], [0, 0], [NAN, NAN]], np.float32),
        ("ink", "paper"),
        "binary_cross_entropy_with_logits",
    ),
}
WEIGHTS = {"date": 0.3, "words": 2.0}
CPU = torch.device("cpu")


def test_losses_are_looked_up_by_row_and_skip_what_is_unknown():
    outputs = {"date": torch.tensor([[1.0], [9.0]]), "words": torch.tensor([[0.2, -0.4], [3, 1]])}
    total, losses = AuxiliaryLoss(TARGETS, WEIGHTS, CPU)(outputs, torch.tensor([2, 1]))
    assert losses["date"].item() == pytest.approx(4.0)  # row 1 has no date
    expected = nn.functional.binary_cross_entropy_with_logits(
        torch.tensor([3.0, 1.0]), torch.zeros(2)
    )
    assert losses["words"].item() == pytest.approx(expected.item())
    assert total.item() == pytest.approx(0.3 * 4 + 2 * expected.item(), rel=1e-6)


def test_a_batch_of_which_nothing_is_known_costs_nothing():
    outputs = {"date": torch.ones(1, 1, requires_grad=True), "words": torch.ones(1, 2)}
    _, losses = AuxiliaryLoss(TARGETS, WEIGHTS, CPU)(outputs, torch.tensor([1]))
    losses["date"].backward()
    assert losses["date"].item() == 0 and outputs["date"].grad.item() == 0


def test_the_step_adds_them_and_mixes_them():
    torch.manual_seed(0)
    model = ImageModel("test_resnet", [None, 1])
    model.add_auxiliary({"date": 1, "words": 2})
    model.eval()  # no BatchNorm in the way of comparing two passes
    batch = Batch((torch.rand(3, 3, 32, 32),), torch.tensor([0.0, 1, 3]), torch.tensor([2, 0, 1]))
    auxiliary, mixup = AuxiliaryLoss(TARGETS, WEIGHTS, CPU), Mixup()
    step = FineTuneStep(
        model, nn.MSELoss(), Regression((0, 3)), mixup, 2, seed=4, auxiliary=auxiliary
    )
    scalars = step(batch, 0, 0)
    mixed = mixup.mix(batch.views[0], np.random.default_rng([4, 0, 0]))
    logits, outputs = model(mixed.images, auxiliary=True)
    expected = 0
    for rows, share in ((batch.rows, mixed.lam), (batch.rows[mixed.partner], 1 - mixed.lam)):
        targets = batch.targets if rows is batch.rows else batch.targets[mixed.partner]
        loss = nn.functional.mse_loss(logits, targets[:, None])
        expected += share * (loss + auxiliary(outputs, rows)[0])
    assert scalars["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert scalars.keys() == {"loss", "loss_date", "loss_words"}
    assert model(batch.views[0]).shape == (3, 1)
