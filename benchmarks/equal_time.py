"""The default of foldsmith beside a plain network and the published recipe, in equal time.

Every contender gets the labelled rows of an image set and a number of seconds, and predicts rows
whose targets only this script reads. foldsmith is run as people run it: `foldsmith new --time`,
then `foldsmith run`; nothing is chosen by the scores found here.

    python benchmarks/equal_time.py --seconds 300 --houses DIR --fgrade DIR
    python benchmarks/equal_time.py --seconds 300 --sets digits artwork --contenders foldsmith
    python benchmarks/equal_time.py --write docs/recipe.md

What is finished is kept in build/equal_time/results.jsonl, a line per set, contender, seconds and
seed, and not measured again; a contender that was interrupted begins anew, so that its seconds
are whole. Measure on an idle machine, without OMP_NUM_THREADS and its like in the environment, as
newcomers do. `--write` puts the tables of all that was measured into a document, between its marks.

Contenders: `foldsmith`; `plain`, benchmarks/plain_network.py (WRN-16-2 from random weights);
`published`, the bundled project's SimSiam, classification and regression in their published
proportions of epochs at 48 px, of sets with numbers. Errors are the RMSE, or the share of wrong
classes; changes of them are paired, hidden rows resampled by group. The best member of a kind and
the best simple baseline are chosen out of fold, not on the hidden rows.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import report
import yaml
from hidden_sets import GROUP, ID, SETS, TARGET, HiddenSet

import foldsmith
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.models.simple_features import SIMPLE_FEATURES, small_copy
from foldsmith.models.simple_models import models_of_classes, models_of_numbers
from foldsmith.project.tables import groups_of, image_paths, read_folds, read_test, targets_of
from foldsmith.steps.manifest import MANIFEST, read_manifest
from foldsmith.steps.run_records import RESOLVED_CONFIG
from foldsmith.targets.metrics import RMSE

Array = npt.NDArray[np.float64]
Result = dict[str, Any]

HERE = Path(__file__).resolve().parent
BUILD = Path("build/equal_time")
ENSEMBLE = "901"
SIDE_OF_PUBLISHED = 48
# Parts of the published recipe at the scale of benchmarks/ablation.py that measure its speed.
_SHORT, _LONG = 1 / 6, 1 / 3


def main() -> None:
    """Measure all that is missing, then print and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument(
        *("--contenders", "-c"),
        nargs="+",
        default=["foldsmith", "plain"],
        choices=list(CONTENDERS),
    )
    parser.add_argument("--seconds", type=int, help="What each contender gets.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--houses", type=Path)
    parser.add_argument("--fgrade", type=Path)
    parser.add_argument("--folder", type=Path, default=BUILD)
    parser.add_argument("--write", type=Path, help="Document to put the measured tables into.")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    sources = {"rooms": arguments.houses, "price": arguments.houses, "fgrade": arguments.fgrade}
    if arguments.seconds is not None:
        for seed in arguments.seeds:
            for name in arguments.sets:
                SETS[name].make(folder / name, sources.get(name))
                for contender in arguments.contenders:
                    measure(folder, SETS[name], contender, arguments.seconds, seed)
    results = read_results(folder)
    for seconds in sorted({result["seconds"] for result in results}):
        print(f"\n{markdown(folder, results, seconds)}")
    if arguments.write is not None:
        write_document(arguments.write, folder, results)


def read_results(folder: Path) -> list[Result]:
    """Return what was measured and has predictions, the last line of each measurement."""
    file = folder / "results.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    found = {}
    for result in map(json.loads, lines):
        key = tuple(result[name] for name in ("set", "contender", "seconds", "seed"))
        if (work_of(folder / result["set"], result) / "predictions.csv").is_file():
            found[key] = result
    return list(found.values())


def work_of(folder: Path, result: Result) -> Path:
    """Return the folder of one measurement, in the folder of its set."""
    return folder / f"{result['contender']}_{result['seconds']}_{result['seed']}"


def measure(folder: Path, data: HiddenSet, contender: str, seconds: int, seed: int) -> None:
    """Run a contender on a set, unless that was done; keep its predictions and a line."""
    key = {"set": data.name, "contender": contender, "seconds": seconds, "seed": seed}
    if any(key.items() <= result.items() for result in read_results(folder)):
        return
    if contender == "published" and data.classes:
        return
    work = work_of(folder / data.name, key)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    print(f"== {data.name}, {contender}, {seconds} s, seed {seed}", flush=True)
    predictions, facts = CONTENDERS[contender](folder / data.name, data, work, seconds, seed)
    predictions.to_csv(work / "predictions.csv", index=False)
    truth = hidden_rows(folder / data.name)
    scores = {
        name: 1 - error(data, truth, predictions, name)
        if data.classes
        else error(data, truth, predictions, name)
        for name in predictions
        if name != ID
    }
    line = key | {"metric": data.metric, "scores": scores, "machine": report.machine()} | facts
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps({"scores": scores} | facts, indent=1), flush=True)


def hidden_rows(folder: Path) -> pd.DataFrame:
    """Return id, target and group (0, 1, ...) of the hidden rows of a set."""
    table = pd.read_csv(folder / "hidden.csv", dtype={ID: str})
    return table.assign(**{GROUP: pd.factorize(table[GROUP])[0]})


def errors_of_rows(
    data: HiddenSet, truth: pd.DataFrame, predictions: pd.DataFrame, name: str
) -> Array:
    """Return the error of each hidden row, of which the RMSE against 0 is the error of all."""
    found = predictions.set_index(ID)[name].reindex(truth[ID])
    if data.classes:
        return (found.to_numpy() != truth[TARGET].to_numpy()).astype(np.float64)
    return found.to_numpy(np.float64) - truth[TARGET].to_numpy(np.float64)


def error(data: HiddenSet, truth: pd.DataFrame, predictions: pd.DataFrame, name: str) -> float:
    """Return the RMSE, or the share of wrong classes."""
    errors = errors_of_rows(data, truth, predictions, name)
    return float(errors.mean() if data.classes else np.sqrt((errors**2).mean()))


def timed(command: Sequence[str], log: Path) -> tuple[float, str]:
    """Run a command as people do; return its wall seconds and its output on stdout."""
    started = time.perf_counter()
    with log.open("w") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    seconds = time.perf_counter() - started
    with log.open("a") as file:
        file.write(done.stdout)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}; see {log}")
    return seconds, done.stdout


def run_foldsmith(
    source: Path, data: HiddenSet, work: Path, seconds: int, seed: int
) -> tuple[pd.DataFrame, Result]:
    """Begin a project by the CLI and run it; return the predictions of the blend and members."""
    command = [sys.executable, "-m", "foldsmith"]
    project, group = work / "project", ["--group", GROUP if data.grouped else "none"]
    begin, _ = timed(
        [
            *(*command, "new", str(project), "--images", str(source / "images")),
            *("--train", str(source / "train.csv"), "--test", str(source / "test.csv")),
            *("--id", ID, "--target", TARGET, *group, "--metric", data.metric),
            *("--classes" if data.classes else "--scale", "--time", f"{seconds}s", "--yes"),
        ],
        work / "new.log",
    )
    overrides = {} if seed == 1 else {"*:globals/seed": seed}
    run, _ = timed(
        [
            *(*command, "run", "-cfg", f"exp_config/{ENSEMBLE}.yml", "--project", str(project)),
            *(f"{path}={value}" for path, value in overrides.items()),
        ],
        work / "run.log",
    )
    results = foldsmith.Project.open(project).results(ENSEMBLE, overrides)
    predictions = results.predictions.rename(columns={"id": ID, "prediction": "blend"})
    scores, manifest = results.scores, read_manifest(results.folder / MANIFEST)
    assert manifest is not None
    facts: Result = {
        "wall": {"new": begin, "run": run},
        "blend": str(manifest.facts["submit"]),
        "oof": dict(zip(scores["name"], scores["cross_fitted"], strict=True)),
        "kinds": {one.folder.name: kind_of(one) for one in results.members.values()},
        "epochs": results.log.groupby("experiment")["epoch"].max().to_dict(),
    }
    predictions["constant"] = constant(source, data)
    if to_beat := manifest.facts.get("to_beat"):
        facts["baseline"] = to_beat["baseline"]
        predictions["baseline"] = simple(project, data, to_beat["baseline"])
    return predictions, facts


def kind_of(member: Any) -> str:
    """Return what a member is: network, pretrained features, or untrained."""
    if len(member.log):
        return "network"
    settings = yaml.safe_load((member.folder / RESOLVED_CONFIG).read_text())
    return "pretrained features" if settings["model"].get("pretrained") else "untrained"


def constant(source: Path, data: HiddenSet) -> Any:
    """Return the one prediction that is best for the labelled rows."""
    targets = pd.read_csv(source / "train.csv")[TARGET]
    return targets.mode()[0] if data.classes else targets.mean()


def simple(folder: Path, data: HiddenSet, name: str) -> npt.NDArray[Any]:
    """Return the predictions of a simple baseline that has learned from all labelled rows.

    Args:
        folder: The project.
        data: The set.
        name: Features and model, as the ensemble names the best one on the labelled rows.
    """
    project = foldsmith.Project.open(folder)
    kind, _, model_name = name.partition(", ")
    table, test = read_folds(project, None), read_test(project)

    def features(rows: pd.DataFrame) -> npt.NDArray[np.float32]:
        images = [foldsmith_image(path) for path in image_paths(project, rows)]
        return SIMPLE_FEATURES[kind](np.stack(images))

    models = models_of_classes(project.class_values) if data.classes else models_of_numbers()
    targets = targets_of(project, table)
    fitted = models[model_name].fit(features(table), targets, groups_of(project, table), 0)
    found = fitted.predict(features(test))
    if data.classes:
        return np.asarray(project.class_names)[found.argmax(axis=1)]
    return np.clip(found, *project.target_range)


def foldsmith_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return an image as the simple baselines see it."""
    from foldsmith.data.images import read_image
    from foldsmith.data.transforms import Compose

    return small_copy(read_image(path, Compose([])))


def run_plain(
    source: Path, data: HiddenSet, work: Path, seconds: int, seed: int
) -> tuple[pd.DataFrame, Result]:
    """Run the plain network; return its predictions."""
    out = work / "plain.csv"
    side = 32 if data.name == "digits" else 64
    wall, said = timed(
        [
            *(sys.executable, str(HERE / "plain_network.py"), str(source), "--out", str(out)),
            *("--seconds", str(seconds), "--seed", str(seed), "--mirror", data.mirror),
            *("--side", str(side), *(["--classes"] if data.classes else [])),
        ],
        work / "plain.log",
    )
    found = pd.read_csv(out, dtype={ID: str}).rename(columns={TARGET: "plain"})
    return found, {"wall": {"run": wall}} | json.loads(said.splitlines()[-1])


def run_published(
    source: Path, data: HiddenSet, work: Path, seconds: int, seed: int
) -> tuple[pd.DataFrame, Result]:
    """Run the published recipe; return its predictions.

    Two short runs of the same project measure its speed, and the numbers of epochs are the largest
    that fit into the time in their published proportions. A target that has no classes is
    learned by the regression alone.
    """
    import ablation

    command = [sys.executable, "-m", "foldsmith"]
    timed(
        [
            *(*command, "new", str(work / "project"), "--images", str(source / "images")),
            *("--train", str(source / "train.csv"), "--test", str(source / "test.csv")),
            *("--id", ID, "--target", TARGET, "--group", GROUP if data.grouped else "none"),
            *("--metric", data.metric, "--scale", "--yes"),
        ],
        work / "new.log",
    )
    project = foldsmith.Project.open(work / "project")
    targets = pd.read_csv(source / "train.csv")[TARGET]
    n_train, has_classes = len(targets), bool(targets.isin(project.class_values).all())
    n_all = n_train + len(pd.read_csv(source / "test.csv"))

    def recipe(longer: float) -> ablation.Row:
        row = ablation.published(ablation.Scale("resnet10t", SIDE_OF_PUBLISHED, longer))
        if not has_classes:
            del row.members["classification"]
        for tree in (row.pretraining, *row.members.values()):
            tree["globals/threads"] = 1
        return row

    def images_of(longer: float) -> float:
        """Return how many images all of the recipe's steps train on."""
        row = recipe(longer)
        folds = sum(tree["globals/max_epoch"] for tree in row.members.values())
        n_folds = project.settings.folds.n_splits
        return 2 * n_all * row.pretraining["globals/max_epoch"] + (n_folds - 1) * n_train * folds

    def run(longer: float) -> tuple[float, Path]:
        scale = ablation.Scale("resnet10t", SIDE_OF_PUBLISHED, longer)
        file, _ = ablation.write(project, recipe(longer), seed, scale)
        at = ["--project", str(project.folder), "--no-report"]
        wall, _ = timed([*command, "run", "-cfg", str(file), *at], work / f"run_{longer:.2f}.log")
        return wall, file

    run(_SHORT / 2)  # Preprocesses, which is no part of the recipe's speed.
    probes = {longer: run(longer) for longer in (_SHORT, _LONG)}
    short, long = (wall for wall, _ in probes.values())
    rate = max(1e-9, (long - short) / (images_of(_LONG) - images_of(_SHORT)))
    fixed = short - rate * images_of(_SHORT)
    fitting = [k / 12 for k in range(1, 1200) if fixed + rate * images_of(k / 12) <= seconds]
    longer = max(fitting, default=1 / 12)
    wall, file = probes.get(longer) or run(longer)
    results = project.results(file.relative_to(project.folder))
    found = results.predictions.rename(columns={"id": ID, "prediction": "published"})
    facts = {"longer": longer, "epochs": recipe(longer).pretraining["globals/max_epoch"]}
    return found[[ID, "published"]], {"wall": {"run": wall}} | facts


CONTENDERS: dict[str, Callable[..., tuple[pd.DataFrame, Result]]] = {
    "foldsmith": run_foldsmith,
    "plain": run_plain,
    "published": run_published,
}


def markdown(folder: Path, results: Sequence[Result], seconds: int) -> str:
    """Return the table of all sets that were measured with so many seconds."""
    measured = [result for result in results if result["seconds"] == seconds]
    seeds = sorted({result["seed"] for result in measured})
    lines = [
        f"Every contender had {seconds} seconds; "
        f"{'seed' if len(seeds) == 1 else 'means of seeds'} {', '.join(map(str, seeds))}.",
        "",
        "| set (labelled, hidden), metric | constant | best simple baseline | "
        "best untrained member | best network | blend, submitted | plain network | published | "
        "error of the blend against plain (95 %) | of the best network against plain (95 %) | "
        "of the blend against the untrained member (95 %) | seconds: new + run, plain, published |",
        "|" + "---|" * 12,
    ]
    notes = []
    for name, data in SETS.items():
        of_set = [result for result in measured if result["set"] == name]
        if of_set:
            lines.append(_line(folder / name, data, of_set))
            notes += _members(data, of_set)
    return "\n".join([*lines, "", *notes])


def _line(folder: Path, data: HiddenSet, results: Sequence[Result]) -> str:
    """Return a row of the table."""
    truth = hidden_rows(folder)
    errors: dict[str, list[Array]] = {}
    walls: dict[str, list[float]] = {}
    for result in results:
        predictions = pd.read_csv(work_of(folder, result) / "predictions.csv", dtype={ID: str})
        columns = {name: name for name in ("constant", "baseline", "blend", "plain", "published")}
        for kind in ("untrained", "network"):
            if best := best_of(data, result, kind):
                columns[best] = kind
        for column, shown in columns.items():
            if column in predictions:
                found = errors_of_rows(data, truth, predictions, column)
                errors.setdefault(shown, []).append(found)
        walls.setdefault(result["contender"], []).append(sum(result["wall"].values()))
    # Squared errors are averaged over the seeds before groups are resampled.
    pooled = {name: np.sqrt(np.mean(np.square(found), axis=0)) for name, found in errors.items()}
    groups = truth[GROUP].to_numpy()
    drawn = bootstrap(RMSE, pooled, np.zeros(len(truth)), groups, seed=0)

    def value(name: str) -> float:
        mean = float(np.square(pooled[name]).mean())
        return 1 - mean if data.classes else math.sqrt(mean)

    def score(name: str) -> str:
        return f"{value(name):.4f}" if name in pooled else ""

    def against(name: str, other: str) -> str:
        if name not in pooled or other not in pooled:
            return ""
        # The share of wrong rows is the mean of their squared errors.
        power = 2 if data.classes else 1
        ours, theirs = drawn[name] ** power, drawn[other] ** power
        low, high = interval(ours / np.maximum(theirs, 1e-9) - 1)
        means = [np.square(pooled[each]).mean() ** (power / 2) for each in (name, other)]
        change = means[0] / max(means[1], 1e-9) - 1
        return f"{change:+.1%} ({low:+.1%} to {high:+.1%})"

    cells = [
        f"{name_of(data, folder)}, {data.metric}",
        *map(score, ("constant", "baseline", "untrained", "network", "blend", "plain")),
        score("published"),
        against("blend", "plain"),
        against("network", "plain"),
        against("blend", "untrained"),
        ", ".join(f"{name} {np.mean(found):.0f}" for name, found in walls.items()),
    ]
    return f"| {' | '.join(cells)} |"


def name_of(data: HiddenSet, folder: Path) -> str:
    """Return name and size of a set."""
    train, hidden = pd.read_csv(folder / "train.csv"), hidden_rows(folder)
    return f"{data.name} ({len(train)}, {len(hidden)} in {hidden[GROUP].nunique()} groups)"


def best_of(data: HiddenSet, result: Result, kind: str) -> str | None:
    """Return the member of a kind that is best out of fold; None if there is none."""
    members = [name for name, its in result.get("kinds", {}).items() if its == kind]
    choose = max if data.classes else min
    return choose(members, key=lambda name: result["oof"][name], default=None)


def _members(data: HiddenSet, results: Sequence[Result]) -> list[str]:
    """Return the hidden score of each member, a line per run."""
    lines = []
    for result in results:
        if result["contender"] != "foldsmith":
            continue
        members = ", ".join(
            f"{name} {result['scores'][name]:.4f} ({kind})"
            for name, kind in result["kinds"].items()
        )
        lines.append(
            f"- {data.name}, seed {result['seed']}: {members}; submitted {result['blend']}; simple "
            f"baseline {result.get('baseline', 'not recorded')}; epochs "
            + ", ".join(f"{name} {epochs}" for name, epochs in result["epochs"].items())
        )
    return lines


def write_document(document: Path, folder: Path, results: Sequence[Result]) -> None:
    """Put the tables into a document, between the marks that it has for them."""
    text = document.read_text(encoding="utf-8")
    for seconds in sorted({result["seconds"] for result in results}):
        begin, end = f"<!-- equal time {seconds} -->", f"<!-- end of equal time {seconds} -->"
        if begin in text and end in text:
            before, _, rest = text.partition(begin)
            table = markdown(folder, results, seconds)
            text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
            print(f"wrote {seconds} s into {document}")
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
