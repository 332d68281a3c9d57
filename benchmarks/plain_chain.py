"""The whole job as a 2021 competition notebook does it: `plain_chain.py PROJECT`.

Statistics with joblib, SimSiam, five folds of classification and of regression, inference
fold by fold, Optuna. It reads the tables of a project, and writes what it finds beside them.
"""

import argparse
import math
from pathlib import Path

import joblib
import numpy as np
import optuna
import pandas as pd
import torch
from contenders import DEVICE, Plain
from preprocessing import statistics_of
from sklearn.model_selection import StratifiedKFold

from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train, targets_of


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pretrain-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--trials", type=int, default=1000)
    options = parser.parse_args()
    project = ProjectFolder.open(options.project)
    train, test = read_train(project), read_test(project)
    targets = targets_of(project, train)
    paths, test_paths = image_paths(project, train), image_paths(project, test)
    facts = joblib.Parallel(n_jobs=4)(
        joblib.delayed(statistics_of)(str(path)) for path in [*paths, *test_paths]
    )
    pd.DataFrame(facts).to_csv(options.project / "facts.csv")

    pretraining = Plain(project.folder, "SimSiam", options.size, options.batch, 0)
    for _ in range(options.pretrain_epochs):
        pretraining.epoch()
    backbone = pretraining.model.backbone.state_dict()

    oofs, on_test = [], []
    splits = list(StratifiedKFold(5, shuffle=True, random_state=0).split(targets, targets))
    for outputs in (4, 1):
        oof, test_sum = np.zeros(len(targets)), np.zeros(len(test_paths))
        for inside, outside in splits:
            training = Plain(project.folder, "fine-tuning", options.size, options.batch, 0)
            training.use([paths[k] for k in inside], targets[inside], outputs, backbone)
            best = math.inf
            for _ in range(options.epochs):
                training.epoch()
                found = predict(training, [paths[k] for k in outside], options.size)
                score = float(np.sqrt(np.mean((found - targets[outside]) ** 2)))
                if score < best:
                    best = score
                    torch.save(training.model.state_dict(), options.project / "best.pth")
            state = torch.load(options.project / "best.pth", weights_only=True)
            training.model.load_state_dict(state)
            oof[outside] = predict(training, [paths[k] for k in outside], options.size)
            test_sum += predict(training, test_paths, options.size)
        oofs.append(oof)
        on_test.append(test_sum / len(splits))

    def objective(trial: optuna.Trial) -> float:
        weights = [trial.suggest_float(f"w{k}", 0, 1, step=0.001) for k in range(len(oofs))]
        return float(np.sqrt(np.mean((np.clip(weights @ np.stack(oofs), 0, 3) - targets) ** 2)))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=options.trials)
    weights = np.array([study.best_params[f"w{k}"] for k in range(len(oofs))])
    blended = np.clip(weights @ np.stack(on_test), 0, 3)
    pd.DataFrame({"target": blended}).to_csv(options.project / "submission.csv", index=False)
    print(f"OOF RMSE {study.best_value:.4f}")


@torch.inference_mode()
def predict(training: Plain, paths: list[Path], size: int) -> np.ndarray:
    """Return the predictions of a model, image files read anew."""
    training.model.eval()
    found = []
    for images, _ in training.plain_loader(paths, size):
        logits = training.model(images[0].to(DEVICE)).float().cpu()
        if logits.shape[1] == 1:
            found.append(logits[:, 0].clamp(0, 3))
        else:
            found.append(logits.softmax(1) @ torch.arange(4.0))
    return torch.cat(found).numpy()


if __name__ == "__main__":
    main()
