"""Measurements of benchmarks/pretraining.py: their files, errors and tables."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from hidden_sets import GROUP, ID, SETS, TARGET, HiddenSet

from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.targets.metrics import RMSE

Result = dict[str, Any]
Array = npt.NDArray[np.float64]

# Names in the tables of features that no pretraining made, and of a network without one.
UNTRAINED, DESCRIPTORS, RANDOM = "random weights", "image descriptors", "from random weights"


def read_results(folder: Path) -> list[Result]:
    """Return all measurements."""
    file = folder / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def predictions_of_result(folder: Path, result: Result) -> Path:
    """Return the file with the predictions of a measurement."""
    seconds = "" if result["seconds"] is None else f"_{result['seconds']:g}"
    name = f"{result['part']}_{slug(result['method'])}{seconds}_{result['seed']}.csv"
    return folder / str(result["set"]) / "predictions" / name


def slug(method: str) -> str:
    """Return the name of a method for files."""
    return method.lower().replace(",", "").replace(" ", "_")


def errors_of(folder: Path, result: Result) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the error of each scored row (0 or 1 with classes), and its group."""
    truth = pd.read_csv(folder / result["set"] / "hidden.csv", dtype={ID: str}).set_index(ID)
    found = pd.read_csv(predictions_of_result(folder, result), dtype={ID: str}).sort_values(ID)
    rows = truth.loc[found[ID]]
    groups = pd.factorize(rows[GROUP])[0]
    targets, predictions = rows[TARGET].to_numpy(), found["prediction"].to_numpy()
    if SETS[result["set"]].classes:
        return (targets != predictions).astype(np.float64), groups
    return predictions.astype(np.float64) - targets.astype(np.float64), groups


def error(data: HiddenSet, errors: Array) -> float:
    """Return the share of wrong rows, or the RMSE."""
    mean = float(np.square(errors).mean())
    return mean if data.classes else mean**0.5


def markdown(folder: Path, results: Sequence[Result]) -> str:
    """Return the tables of all measurements: frozen features, then fine-tunings."""
    sections = []
    for part, first, title in (
        ("features", UNTRAINED, "a head on frozen features"),
        ("fine-tuning", RANDOM, "a fine-tuning, with its pretraining"),
    ):
        of_part = [result for result in results if result["part"] == part]
        if of_part:
            sections.append(_table(folder, of_part, first, title))
    return "\n\n".join(sections)


def _table(folder: Path, results: Sequence[Result], first: str, title: str) -> str:
    """Return a table: a row per method and seconds, a column per set.

    Args:
        folder: Folder of all measurements.
        results: Those of one part.
        first: The method that the others are compared with, by paired differences.
        title: Title of the first column.
    """
    names = [name for name in SETS if any(result["set"] == name for result in results)]
    # In the order in which they were measured, what takes no time first.
    found = dict.fromkeys((result["method"], result["seconds"]) for result in results)
    rows = sorted(found, key=lambda row: (row[1] or 0.0, row[0] != first))
    heads = [f"{name}, {'share of wrong rows' if SETS[name].classes else 'RMSE'}" for name in names]
    heads = [title, "CPU seconds given", *heads]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for method, seconds in rows:
        cells = []
        for name in names:
            own = [
                r
                for r in results
                if (r["set"], r["method"], r["seconds"]) == (name, method, seconds)
            ]
            against = [
                r
                for r in results
                if r["set"] == name
                and r["method"] == first
                and (seconds is None or r["seconds"] in (None, seconds))
            ]
            cells.append(_cell(folder, SETS[name], own, against if method != first else []))
        # A fine-tuning has as long as the pretraining, or both if there is none.
        shown = "" if seconds is None else f"{seconds if first == UNTRAINED else 2 * seconds:g}"
        name = f"from {method}" if first == RANDOM and method != RANDOM else method
        lines.append(f"| {name} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(folder: Path, data: HiddenSet, own: Sequence[Result], against: Sequence[Result]) -> str:
    """Return an error and its change against other measurements, paired, by group."""
    if not own:
        return ""
    # Squared errors are averaged over the seeds before groups are resampled.
    pooled = {}
    for name, results in (("own", own), ("against", against)):
        found = [errors_of(folder, result) for result in results]
        if found:
            pooled[name] = np.sqrt(np.mean([np.square(errors) for errors, _ in found], axis=0))
    _, groups = errors_of(folder, own[0])
    facts = [f"{error(data, pooled['own']):.4f}"]
    if "against" in pooled:
        drawn = bootstrap(RMSE, pooled, np.zeros(len(groups)), groups, seed=0)
        power = 2 if data.classes else 1
        ratio = drawn["own"] ** power / np.maximum(drawn["against"] ** power, 1e-9)
        low, high = interval(ratio - 1)
        change = error(data, pooled["own"]) / error(data, pooled["against"]) - 1
        facts.append(f"{change:+.1%} ({low:+.1%} to {high:+.1%})")
    epochs = {result["epochs"] for result in own if "epochs" in result}
    if epochs:
        seconds = np.mean([result["cpu_s"] for result in own])
        facts.append(f"{'/'.join(map(str, sorted(epochs)))} epochs, {seconds:.0f} s")
    if len(own) > 1:
        facts.append(f"{len(own)} seeds")
    return "; ".join(facts)


def write_document(document: Path, folder: Path, results: Sequence[Result]) -> None:
    """Put the tables into a document, between the marks that it has for them."""
    text = document.read_text(encoding="utf-8")
    begin, end = "<!-- pretraining -->", "<!-- end of pretraining -->"
    if begin not in text or end not in text:
        sys.exit(f"{document}: has no marks {begin} and {end}")
    before, _, rest = text.partition(begin)
    text = f"{before}{begin}\n{markdown(folder, results)}\n{end}{rest.partition(end)[2]}"
    document.write_text(text, encoding="utf-8")
    print(f"wrote {document}")
