"""The planned values in the experiment files of a project, and the record of them.

``time_plan.json`` holds the text of each planned file: a file that a person has changed since is
not planned again, and a plan whose writing was interrupted is completed.
"""

import json
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError
from foldsmith.new.files import recipe_of, recipe_texts, recipe_texts_to_fill_in
from foldsmith.new.timing.facts import Facts, MachineSpeeds
from foldsmith.new.timing.measure import facts_of, measured_speeds, values_of
from foldsmith.new.timing.mirrors import MirrorTest, mirror_test, without_mirrors
from foldsmith.new.timing.rule import Choice, choose
from foldsmith.project import ProjectFolder
from foldsmith.project.budget import Budget, budget_of, seconds_of
from foldsmith.project.planned_time import TIME_PLAN
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.project.tables import read_test, read_train
from foldsmith.run.table import duration
from foldsmith.utils.atomic import write_text
from foldsmith.utils.machine import cores_here
from foldsmith.utils.yaml_io import scalar_yaml

logger = logging.getLogger(__name__)

# Experiments of the recommended recipe: the pretraining, the heads on its features, the members
# without a training in the order of their worth for their seconds (docs/recipe.md), the
# fine-tunings, the most useful first, and the blend.
_PRETRAINING, _FROZEN = "300", "401"
_UNTRAINED = ("400", "403", "404", "402")
_FINE_TUNINGS = ("410", "420")
_BLEND = "901"

_NO_MIRRORS = "# No mirror images: they have other targets."

_NOT_ENLARGED = "# Images are not enlarged."

# Smallest image size of members without a training; sizes are multiples of a cell of gradients.
_LEAST_SIDE, _CELL = 32, 4

_TIME_LINE = re.compile(r"^time:.*$", re.MULTILINE)

# Other processes are worth a line if they keep so many cores busy.
_MANY_BUSY = 0.5

# Path of an experiment file, relative to the project, as in exp_config/410.yml -> its text.
Texts = Mapping[str, str]


@dataclass(frozen=True)
class TimePlan:
    """A plan, as ``time_plan.json`` records it.

    Attributes:
        time: The time as it was named.
        facts: The facts about the data.
        seconds: Name of a step's series, as in ``train 410`` -> estimated seconds of one such step.
        why: Each choice -> its reason, which the report shows.
        images_per_s: The same of a training -> measured images per second.
        texts: Text of each experiment file.
        before: Texts before the plan, of files that may not have been written yet; None for a
            file that was not there.
        mirror_images: The project's setting.
    """

    time: str
    facts: Mapping[str, Any]
    seconds: Mapping[str, float]
    why: Mapping[str, str]
    texts: Texts
    images_per_s: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, str | None] = field(default_factory=dict)
    mirror_images: bool | None = None

    @property
    def text(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Measurements:
    """The inputs of a plan.

    Attributes:
        facts: Facts about the data.
        speeds: Speeds of this machine.
        texts: The experiments of the recommended recipe without planned values; without mirror
            images where these have other targets, and at sizes that enlarge no image.
        mirrors: The test of mirror images; None if there was none.
        mirror_images: The project's setting.
        side: Image size of the members that would enlarge images at their own; None if none would.
    """

    facts: Facts
    speeds: MachineSpeeds
    texts: Texts
    mirrors: MirrorTest | None = None
    mirror_images: bool | None = None
    side: int | None = None


def measured(project: ProjectFolder, time: str, texts: Texts) -> Measurements:
    """Measure a project's data and this machine.

    Args:
        project: The project; it need not be preprocessed, nor have experiments.
        time: The time.
        texts: The experiments of the recommended recipe.

    Raises:
        FoldsmithError: A table, an image or an experiment is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="foldsmith-") as folder:
        # The project's own files have the values of an earlier plan, or are not there.
        files = {Path(name).stem: str(Path(folder) / Path(name).name) for name in texts}
        _write_to(files.values(), texts)
        wanted = project.settings.mirror_images
        mirrors = mirror_test(project) if wanted is None else None
        if wanted is False or (mirrors is not None and not mirrors.same):
            texts = _without_mirrors(project, files.values(), texts)
            _write_to(files.values(), texts)
        fine_tunings = {name: files[name] for name in _FINE_TUNINGS if name in files}
        untrained = {name: files[name] for name in _UNTRAINED}
        facts = facts_of(project, fine_tunings, untrained)
        side = max(_LEAST_SIDE, -(-facts.longest // _CELL) * _CELL)
        smaller = _not_enlarged(project, untrained, texts, side)
        _write_to(files.values(), smaller)
        first = next(iter(fine_tunings.values()))
        fitted = list(untrained.values())
        speeds = measured_speeds(project, facts, first, fitted, seconds_of(time))
    return Measurements(facts, speeds, smaller, mirrors, wanted, side if smaller != texts else None)


def _write_to(files: Iterable[str], texts: Texts) -> None:
    for file, text in zip(files, texts.values(), strict=True):
        Path(file).write_text(text, encoding="utf-8")


def _without_mirrors(project: ProjectFolder, files: Iterable[str], texts: Texts) -> Texts:
    """Return the experiments with the values that leave mirror images out."""
    found = {}
    for file, (name, text) in zip(files, texts.items(), strict=True):
        values = without_mirrors(Experiment.load(project, Path(file)))
        found[name] = _added(text, _NO_MIRRORS, values) if values else text
    return found


def _not_enlarged(
    project: ProjectFolder, files: Mapping[str, str], texts: Texts, side: int
) -> Texts:
    """Return the experiments, with a smaller image size where a member would enlarge images.

    Enlarged images cost time and were worse or no better for these members (docs/recipe.md).

    Args:
        project: The project.
        files: Names of the members without a training, with their files.
        texts: All experiments of the recommended recipe.
        side: Largest size at which no image is enlarged.
    """
    found = dict(texts)
    for path, text in texts.items():
        file = files.get(Path(path).stem)
        if file and Experiment.load(project, Path(file)).tree["dataset"]["img_size"] > side:
            found[path] = _added(text, _NOT_ENLARGED, {"dataset/img_size": side})
    return found


def planned(found: Measurements, time: str) -> TimePlan:
    """Choose the values that fit a time, and print them with the reasons.

    Args:
        found: The measurements.
        time: The time.
    """
    facts, speeds = found.facts, found.speeds
    choice = choose(seconds_of(time), facts, speeds)
    if found.mirrors is not None:
        choice = replace(choice, why={**choice.why, **_about_mirrors(found.mirrors)})
    if found.side is not None:
        size = {f"descriptors at {found.side} px": "small images are not enlarged for them"}
        choice = replace(choice, why={**choice.why, **size})
    for line in _lines(time, choice, speeds):
        logger.info(line)
    if speeds.busy_cores >= _MANY_BUSY:
        logger.warning(
            f"other processes keep {speeds.busy_cores:.1f} of {cores_here()} cores busy: this plan "
            "is for the speed that they leave. When they have ended, plan anew by 'foldsmith run' "
            f"with another --time than {time}"
        )
    return TimePlan(
        time=time,
        facts=_plain(asdict(facts)),
        mirror_images=found.mirror_images,
        seconds=_seconds(choice, facts, speeds),
        why=choice.why,
        texts=with_values(found.texts, time, choice, facts),
        images_per_s={
            f"train {name}": round(speeds.levels[choice.level.name].taken, 1)
            for name in choice.fine_tunings
        },
    )


def with_values(texts: Texts, time: str, choice: Choice, facts: Facts) -> dict[str, str]:
    """Return the experiments of a choice, with its values.

    Args:
        texts: All experiments of the recommended recipe.
        time: The time.
        choice: The choice.
        facts: The data.
    """
    absent = {*_FINE_TUNINGS, *_UNTRAINED} - {*choice.fine_tunings, *choice.untrained}
    if not choice.pretraining:
        absent |= {_PRETRAINING, _FROZEN}
    unused = "|".join(sorted(absent))
    line = re.compile(rf"^.*(?:\{{from: (?:{unused})\b|\boutput/(?:{unused})_).*\n", re.MULTILINE)
    found = {}
    for path, text in texts.items():
        name = Path(path).stem
        if name in absent:
            continue
        kept = line.sub("", text) if absent else text
        values = _values_for(name, choice, facts)
        if values:
            kept = _added(kept, _comment(name, time, choice, facts), values)
        found[path] = kept
    return found


def _added(text: str, comment: str, values: Mapping[str, Any]) -> str:
    """Return an experiment with further values, below a comment."""
    dumped = "".join(f"{key}: {scalar_yaml(value)}\n" for key, value in values.items())
    return f"{text.rstrip()}\n\n{comment}\n{dumped}"


def _about_mirrors(test: MirrorTest) -> dict[str, str]:
    """Return the choice of mirror images and its reason, also how to choose otherwise."""
    if test.same:
        return {"mirrors used": f"nothing shows that they have other targets ({test.text})"}
    why = "mirror images have other targets"
    other = "to use them, set mirror_images: true in project.yml and run with --time"
    return {"mirrors none": f"{why} ({test.text}); {other}"}


def plan_for(project: ProjectFolder, config: Path | str, time: str) -> ProjectFolder:
    """Plan a project for a time, unless it is planned for it already; return it opened anew.

    Args:
        project: The project.
        config: The experiment that will be run: one of the recommended recipe.
        time: The time.

    Raises:
        ConfigError: The time is none, the experiment is another, or one of the recipe was changed
            since it was planned.
        FoldsmithError: A table, an image or an experiment is wrong.
    """
    try:
        seconds = seconds_of(time)
    except ValueError as error:
        raise ConfigError(f"--time: {error}") from None
    texts = _recipe_of(project, budget_of(seconds))
    names = {project.path(name).resolve() for name in texts}
    if project.path(config).resolve() not in names:
        raise ConfigError(
            f"--time plans the experiments of the recommended recipe ({', '.join(texts)}), and "
            f"{config} is none of them; run it without --time"
        )
    record = read_plan(project.folder)
    wanted = seconds, project.settings.mirror_images
    if record is None or (seconds_of(record.time), record.mirror_images) != wanted:
        written = (
            [record.texts, record.before]
            if record
            else [_recipe_of(project, project.settings.budget), recipe_texts_to_fill_in()]
        )
        _refuse_changed(project, written)
        logger.info(f"a new plan for {time}: measuring this machine")
        # Experiments are read with their values for the new time.
        settings = project.settings.model_copy(update={"time": time})
        project = ProjectFolder(project.folder, settings, trust=True, remembered=False)
        planned_before = written[0].keys()
        record = planned(measured(project, time, texts), time)
        changing = sorted(planned_before | record.texts.keys())
        record = replace(record, before={name: _text(project.path(name)) for name in changing})
        write_plan(project.folder, record)
    _write(project.folder, record)
    return ProjectFolder.open(project.folder, trust=True, remembered=False)


def _recipe_of(project: ProjectFolder, budget: Budget) -> Texts:
    """Return the recommended experiments for a project, without planned values."""
    recipe = recipe_of(project.form.kind, project.form.unordered, project.metric)
    n_images = len(read_train(project)) + len(read_test(project))
    return recipe_texts(recipe, budget, n_images)


def read_plan(folder: Path) -> TimePlan | None:
    """Return the plan of a project; None if it has none.

    Raises:
        ConfigError: The record cannot be read.
    """
    path = folder / TIME_PLAN
    try:
        return TimePlan(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); remove it, and the planned values from exp_config"
        ) from None


def write_plan(folder: Path, plan: TimePlan) -> None:
    """Write the record of a plan."""
    write_text(folder / TIME_PLAN, plan.text)


def _write(folder: Path, plan: TimePlan) -> None:
    """Write the files of a plan which are still as they were before it."""
    for name, before in plan.before.items():
        path, text = folder / name, plan.texts.get(name)
        if _text(path) != before or text == before:
            continue
        if text is None:
            path.unlink()
            logger.info(f"removed {path}: not in this plan")
        else:
            write_text(path, text)
            logger.info(f"wrote {path}")
    file = folder / PROJECT_FILE
    content = file.read_text(encoding="utf-8")
    line = f"time: {plan.time}"
    changed = _TIME_LINE.sub(line, content)
    if not _TIME_LINE.search(content):
        changed = f"{content.rstrip()}\n{line}\n"
    if changed != content:
        write_text(file, changed)
        logger.info(f"wrote {file}: {line}")
    if plan.before:
        write_plan(folder, replace(plan, before={}))


def _refuse_changed(project: ProjectFolder, written: Sequence[Mapping[str, str | None]]) -> None:
    """Make sure that the experiments are as foldsmith wrote them.

    Args:
        project: The project.
        written: Path -> the text that foldsmith last wrote; then other texts that it may have
            written.

    Raises:
        ConfigError: One is not.
    """
    for name in written[0]:
        path = project.path(name)
        if _text(path) not in [texts[name] for texts in written if name in texts]:
            raise ConfigError(
                f"{path}: was changed since it was planned, and --time would overwrite it; undo "
                "the change, or run without --time and set globals/max_epoch and the other values "
                "yourself"
            )


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _values_for(name: str, choice: Choice, facts: Facts) -> dict[str, Any]:
    """Return the planned values of an experiment."""
    level, values = choice.level, values_of(choice.level, choice.mixed, facts)
    if name in choice.fine_tunings:
        return {"globals/max_epoch": choice.epochs, **values}
    if name == _FROZEN and choice.pretraining:
        return values
    if name == _PRETRAINING and choice.pretraining:
        found = {
            "globals/max_epoch": choice.pretraining,
            "globals/enable_amp": choice.mixed,
            "model/backbone/model_name": level.backbone,
            "dataset/img_size": level.side,
        }
        if level.options:
            found["model/backbone/options"] = dict(level.options)
        return found
    return {}


def _comment(name: str, time: str, choice: Choice, facts: Facts) -> str:
    """Return the comment above the planned values of an experiment: its cost."""
    head = f"# Planned for {time} ('foldsmith run --time' plans anew)"
    if name in choice.fine_tunings:
        each = f"{choice.epochs} epochs of {facts.n_fold:,} images at {choice.fold_epoch_s:.2g} s"
        beside = f", {facts.processes} side by side" if facts.processes > 1 else ""
        return f"{head}:\n# {each}; {facts.n_splits} folds of {choice.fold_s:.0f} s{beside}."
    if name == _PRETRAINING:
        return f"{head}:\n# about {duration(choice.pretraining_s)}."
    return f"{head}."


def _lines(time: str, choice: Choice, speeds: MachineSpeeds) -> Iterator[str]:
    """Yield the choices with their reasons, for people."""
    for what, why in choice.why.items():
        head, _, value = what.partition(" ")
        yield f"{head:<8} {value}: {why}" if len(head) < 9 else f"{head} {value}: {why}"
    others_s = choice.first_s + choice.rest_s + choice.pretraining_s + speeds.spent_s
    shares = [
        ("this measurement", speeds.spent_s),
        ("statistics and untrained members", choice.first_s),
        ("pretraining", choice.pretraining_s),
        ("fine-tunings", choice.total_s - others_s),
        ("blends and reports", choice.rest_s),
    ]
    listed = ", ".join(f"{what} {duration(s)}" for what, s in shares if s >= 0.5)
    yield f"total    about {duration(choice.total_s)}: {listed}"
    if choice.total_s > seconds_of(time):
        yield f"note: even this plan takes longer than {time}"


def _seconds(choice: Choice, facts: Facts, speeds: MachineSpeeds) -> dict[str, float]:
    """Return the estimated seconds of steps, by the names of their series."""
    n_all = facts.n_train + facts.n_test
    found = {"preprocess": speeds.start_s + n_all * speeds.preprocess_s}
    for name, fit_s in zip(facts.untrained, speeds.untrained_s, strict=True):
        if name in choice.untrained:
            found[f"fit {name}"] = fit_s
    for name, infer_s in zip(choice.fine_tunings, choice.infer_s, strict=True):
        found[f"train {name}"] = choice.fold_s
        found[f"infer {name} by last"] = infer_s
    if choice.pretraining:
        found[f"pretrain {_PRETRAINING}"] = choice.pretraining_s
        found[f"fit {_FROZEN}"] = choice.infer_s[0]
    found[f"ensemble {_BLEND}"] = speeds.member_s
    return {name: round(seconds, 1) for name, seconds in found.items()}


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value))
