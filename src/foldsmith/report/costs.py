"""Costs of runs: time, speed and memory, from manifests and logs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from foldsmith.project.planned_time import planned_choices
from foldsmith.report.parts import Part, Section, Table, Text, not_done, table
from foldsmith.run.table import duration
from foldsmith.steps.base import Plan
from foldsmith.steps.kinds.registry import kinds_of
from foldsmith.steps.manifest import read_manifest
from foldsmith.training.files import entries_of
from foldsmith.utils.formatting import counted

_SPEED, _HOST, _CUDA = "images/s", "host MiB", "GPU MiB"
_WHAT = (
    "images per second of the median epoch; peak memory of a training: resident, with its loader "
    "processes, and what torch took on a GPU"
)


def costs(plan: Plan) -> pd.DataFrame:
    """Return the costs of each finished step of a plan.

    Returns:
        Columns kind, step, folder, seconds, images/s, host MiB and GPU MiB (NaN where unknown),
        device, finished.
    """
    records = []
    for step in plan.steps:
        path = step.kind.manifest(step)
        manifest = read_manifest(path)
        if manifest is None:
            continue
        log = entries_of(path.parent)
        of_epochs = {
            name: np.array([entry[key] for entry in log if key in entry], np.float64)
            for name, key in ((_SPEED, "images_per_s"), (_HOST, "host_mib"), (_CUDA, "cuda_mib"))
        }
        records.append(
            {
                "kind": step.kind.name,
                "step": step.label,
                "folder": str(step.folder),
                "seconds": round(float(manifest.facts.get("wall_s", 0.0)), 1),
                **{
                    # Each peak covers all epochs so far; it restarts in a resumed training.
                    name: (np.median if name == _SPEED else np.max)(values) if len(values) else None
                    for name, values in of_epochs.items()
                },
                "device": manifest.facts.get("device", ""),
                "finished": str(manifest.facts.get("finished", "")),
            }
        )
    columns = ["kind", "step", "folder", "seconds", _SPEED, _HOST, _CUDA, "device", "finished"]
    frame = pd.DataFrame(records, columns=columns)
    return frame.astype({"seconds": float, _SPEED: float, _HOST: float, _CUDA: float})


def cost_of(plan: Plan) -> Section:
    """Return the section with the costs of a plan's steps."""
    section = Section("Cost", "cost", _choices(plan))
    frame = costs(plan).drop(columns=["kind", "folder"])
    if frame.empty:
        section.parts.append(not_done("Anything"))
        return section
    total = float(frame["seconds"].sum())
    section.parts.append(Text(f"{duration(total)} of work in {len(frame)} finished steps."))
    if frame[_CUDA].isna().all():
        frame = frame.drop(columns=_CUDA)
    section.parts.append(table(f"Steps; {_WHAT}", _whole(frame), digits=1))
    return section


def _choices(plan: Plan) -> list[Part]:
    """Return the choices of the time plan with their reasons, if a step was planned by it."""
    choices = planned_choices(plan.project.folder)
    if choices is None or choices.experiments.isdisjoint(step.name for step in plan.steps):
        return []
    caption = f"Choices for a run of {choices.time}, from the data and the speed of this machine"
    rows = list(choices.reasons.items())
    return [Table(caption, ["choice", "reason"], rows)]


def costs_beside(plans: Mapping[str, Plan]) -> Section:
    """Return the section with the costs of several runs, a column each.

    Args:
        plans: Name of each run -> its steps.
    """
    section = Section("Cost", "cost")
    by_name = {name: costs(plan) for name, plan in plans.items()}
    shared = set.intersection(
        *(set(zip(each["step"], each["folder"], strict=True)) for each in by_name.values())
    )
    parts = [
        f"{name} took {duration(float(each['seconds'].sum()))} in {counted(len(each), 'step')}"
        for name, each in by_name.items()
    ]
    section.parts.append(Text(f"{'; '.join(parts)}; {len(shared)} of these steps are the same."))
    columns = {}
    kinds = [kind.name for kind in kinds_of(next(iter(plans.values())).project)]
    for value, summed in (("seconds", "sum"), (_SPEED, "median"), (_HOST, "max"), (_CUDA, "max")):
        if all(each[value].isna().all() for each in by_name.values()):
            continue
        for name, each in by_name.items():
            found = each.groupby("kind")[value].agg(summed)
            columns[f"{value} {name}"] = found.reindex(kinds)
    frame = pd.DataFrame(columns).dropna(how="all").rename_axis("steps").reset_index()
    caption = f"All steps of a kind: seconds in sum; {_WHAT}"
    section.parts.append(table(caption, _whole(frame), digits=1))
    return section


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Round speeds and memory to whole numbers."""
    names = [name for name in frame.columns if str(name).startswith((_SPEED, _HOST, _CUDA))]
    return frame.assign(**{name: frame[name].round() for name in names})
