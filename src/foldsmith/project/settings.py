"""The settings of a project: the content of ``project.yml``."""

import re
from math import isfinite
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from foldsmith.project.budget import Budget, budget_of, seconds_of
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.class_weights import ClassWeights, class_weights_problem
from foldsmith.project.column_forms import Classes, OneNumber
from foldsmith.project.further_targets import AuxiliarySettings, ContinuousSettings
from foldsmith.project.label_forms import LabelsInColumns, LabelsInText, split_labels
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.project.resources import Resources
from foldsmith.project.several_targets import (
    check_classes,
    check_names,
    check_ranges,
    check_weights,
)
from foldsmith.project.target_forms import TargetForm
from foldsmith.targets.formulas import parse_formula
from foldsmith.targets.label_metrics import F1_OF_LABELS
from foldsmith.targets.metric_text import joined_metric
from foldsmith.targets.metrics import default_metric

# Values that follow where an image has several labels: each is absent or present.
_OF_LABELS = {"target_range": (0, 1), "n_classes": 2, "metric": F1_OF_LABELS.title}

# Columns that foldsmith adds to the tables or to copies of them.
_ADDED = ("fold", "merged_group", "prediction")

FoldMethod = Literal["StratifiedGroupKFold", "GroupKFold", "StratifiedKFold", "KFold"]

# The fold table is named after the method, as in train_sgkf-5fold.csv.
FOLD_METHOD_SHORT: dict[str, str] = {
    "StratifiedGroupKFold": "sgkf",
    "GroupKFold": "gkf",
    "StratifiedKFold": "skf",
    "KFold": "kf",
}


class FoldSettings(BaseModel):
    """How the labelled images are split.

    Attributes:
        method: ``StratifiedGroupKFold``, ``GroupKFold``, ``StratifiedKFold`` or ``KFold``.
        n_splits: Number of folds, at least 2.
        seed: Seed of the shuffle before splitting.
        merge_near_duplicates: Put near-identical images into one fold, with their groups.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: FoldMethod = "StratifiedGroupKFold"
    n_splits: int = Field(default=5, ge=2)
    seed: int = Field(default=0, ge=0)
    merge_near_duplicates: bool = False


class ProjectSettings(BaseModel):
    """The content of ``project.yml``.

    Attributes:
        name: Name of the project.
        data_dir: Folder of the tables and images, relative to the project folder.
        train_csv: Table of the labelled images, in ``data_dir``.
        test_csv: Table of the images to predict, in ``data_dir``.
        image_path: Template of an image's path in ``data_dir``; ``{column}`` stands for the
            value of that column, as in ``photos/{object_id}.jpg``.
        id_column: Column with the image's unique id.
        target_column: Column to predict.
        target_columns: Several columns to predict, in the place of ``target_column``.
        target_kind: What these hold: ``labels`` (0 and 1, a label each), ``numbers`` or
            ``classes``; some numbers or classes may be missing.
        target_classes: Texts of the classes of each column of ``target_kind: classes``, as in
            ``{colour: [red, blue], shape: [disc, square]}``, which have no order.
        label_separator: Text between the labels in ``target_column``, which then contains any
            number of labels per row, as in "scab rust".
        label_names: Names of these labels.
        group_column: Column whose equal values must stay in one fold, if there is one.
        sample_weight_column: Column of the train table with the weight of each row, a number of at
            least 0, for losses and heads. Weights are scaled to the mean 1 over the rows of a
            training; a row of weight 0 is predicted, but nothing is learned from it.
        class_weights: Weights of classes or labels in losses and heads, the default of the
            experiments' ``globals/class_weights``: ``balanced`` (every class has the same sum of
            weights; for each label, the images with it and those without it), or a weight by name,
            as in ``{cat: 1, lynx: 5}``, 1 for others.
        metric_weight_column: Column of the train table with the weight of each row in the metric,
            as in a competition that weighs its rows; it may be ``sample_weight_column``. Scores,
            intervals, thresholds, calibration and blends go by it. A row of weight 0 is not judged.
        sample_submission: CSV in ``data_dir`` whose columns the submissions take; without
            it they have the id and the target column.
        target_range: Lowest and highest possible target; predictions are clipped to it.
        target_ranges: The same for each of several numbers, as in ``{a: [0, 10], b: [0, 1]}``, in
            the place of ``target_range``.
        target_weights: Weight in the metric, and in the loss of the recipes, of some of several
            numbers or class targets, as in ``{a: 0.1, total: 0.5}``; that of other targets is 1.
        derived_columns: Columns that predictions and submissions have beside several numbers,
            computed from these, as in ``{total: a + b + c}``: names, numbers, ``+ - * /`` and
            brackets. The metric judges those that have a weight.
        n_classes: Number of classes when the target is treated as classes.
        class_values: Target value of each class; evenly spaced over ``target_range`` if
            not given.
        class_names: Texts of the target column, for classes without an order. In computations
            they are 0, 1, ... in this order; the range and number of classes follow from this.
            Output files contain the texts.
        continuous: A continuous column whose binned form is the target, if there is one.
        auxiliary: Auxiliary targets, by name.
        metric: Judges the predictions: epochs, blends, reports and comparisons go by it. One of
            the package's metrics (``foldsmith new --help`` lists them), or of the project's own
            (``python``). Options of a metric are written as ``FBeta(beta=2)`` or as
            ``{name: FBeta, beta: 2}``. The default for classes without an order is ``Accuracy``.
        folds: How to split.
        time: How long a run of the recommended experiments may take, as in ``90s``, ``15m``,
            ``1h30m``; ``small``, ``medium`` and ``large`` are 15 minutes, 1 hour and 8 hours. Up
            to 30 minutes experiments take the first of values that are written as
            ``{small: 20, medium: 100, large: 300}``, up to 3 hours the second. ``foldsmith new``
            and ``foldsmith run --time 15m`` plan sizes and epochs for it.
        mirror_images: Whether the mirror image of an image has the same target, so that planned
            experiments use it. By default ``foldsmith new`` and ``foldsmith run --time 1h`` find
            out: the mirror images of letters, for instance, are other letters.
        resources: Resources that each kind of step requests, as in
            ``{train: {cpus: 4, gpus: 0.5, memory_gib: 8}}``; experiments may say more in
            ``globals/resources``.
        python: Python files of the project itself, relative to its folder. Each has a
            dict ``TYPES`` of names that the project's YAML may use as ``type:``.
        intensity_range: Values that become 0 and 255 in images with more than 8 bits per channel
            (16-bit, 32-bit, floating point), in between linearly; values outside are clipped. One
            scale for all of them, new images included. ``preprocess`` proposes it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    data_dir: str = "input"
    train_csv: str = "train.csv"
    test_csv: str = "test.csv"
    image_path: str
    id_column: str
    target_column: str | None = None
    target_columns: tuple[str, ...] = ()
    target_kind: Literal["labels", "numbers", "classes"] = "labels"
    target_classes: dict[str, tuple[str, ...]] = {}
    label_separator: str | None = None
    label_names: tuple[str, ...] = ()
    group_column: str | None = None
    sample_weight_column: str | None = None
    class_weights: ClassWeights | None = None
    metric_weight_column: str | None = None
    sample_submission: str | None = None
    target_range: tuple[float, float]
    target_ranges: dict[str, tuple[float, float]] = {}
    target_weights: dict[str, float] = {}
    derived_columns: dict[str, str] = {}
    n_classes: int = Field(ge=2)
    class_values: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    continuous: ContinuousSettings | None = None
    auxiliary: dict[str, AuxiliarySettings] = {}
    metric: str = default_metric(unordered=False).name
    folds: FoldSettings = FoldSettings()
    time: str = "small"
    mirror_images: bool | None = None
    resources: dict[str, Resources] = {}
    python: tuple[str, ...] = ()
    intensity_range: tuple[float, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_names(cls, content: object) -> object:
        if not isinstance(content, dict):
            return content
        if content.get("target_kind") == "numbers":
            return {**_hull(content.get("target_ranges")), "n_classes": 2, **content}
        if content.get("target_kind") == "classes":
            metric = default_metric(unordered=True).name
            return {"target_range": (0, 1), "n_classes": 2, "metric": metric, **content}
        if content.get("target_columns") or content.get("label_separator") is not None:
            return {**_OF_LABELS, **content}
        names = content.get("class_names")
        if not isinstance(names, list | tuple) or not names:
            return content
        implied = {"target_range": (0, len(names) - 1), "n_classes": len(names)}
        return {**implied, "metric": default_metric(unordered=True).name, **content}

    @property
    def budget(self) -> Budget:
        """Which of three values experiments take."""
        return budget_of(seconds_of(self.time))

    @field_validator("time", mode="before")
    @classmethod
    def _a_time(cls, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is not a time; write it as in 90s, 15m or 1h")
        seconds_of(value)
        return value

    @field_validator("metric", mode="before")
    @classmethod
    def _name_of_metric(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            options = {str(key): option for key, option in value.items() if key != "name"}
            return joined_metric(value["name"], options)
        if isinstance(value, dict):
            raise ValueError("needs a name beside its options, as in {name: FBeta, beta: 2}")
        if not isinstance(value, str):
            raise ValueError(f"there is no metric {value}")
        return value

    @property
    def several_labels(self) -> bool:
        """Whether an image has several labels."""
        in_columns = bool(self.target_columns) and self.target_kind == "labels"
        return in_columns or self.label_separator is not None

    @property
    def several_numbers(self) -> bool:
        """Whether an image has several numbers."""
        return self.target_kind == "numbers"

    @property
    def several_classes(self) -> bool:
        """Whether an image has several class targets."""
        return self.target_kind == "classes"

    @property
    def form(self) -> TargetForm:
        """The form of the target."""
        if self.several_classes:
            classes = tuple((name, self.target_classes[name]) for name in self.target_columns)
            return ClassTargets(classes, tuple(self.target_weights.items()))
        if self.several_numbers:
            return SeveralNumbers(
                self.target_columns,
                tuple(self.target_ranges.get(n, self.target_range) for n in self.target_columns),
                tuple(self.target_weights.items()),
                tuple(
                    (name, parse_formula(text, self.target_columns))
                    for name, text in self.derived_columns.items()
                ),
            )
        if self.target_columns:
            return LabelsInColumns(self.target_columns)
        column = self.target_column
        assert column is not None, "checked before"
        if self.label_separator is not None:
            return LabelsInText(self.label_names, column, self.label_separator)
        values = self.values_of_classes
        if self.class_names:
            return Classes(column, self.target_range, values, self.class_names)
        return OneNumber(column, self.target_range, values)

    @property
    def values_of_classes(self) -> tuple[float, ...]:
        """Target value of each class, evenly spaced over the range if not given."""
        if self.class_values:
            return self.class_values
        low, high = self.target_range
        step = (high - low) / (self.n_classes - 1)
        return tuple(low + step * k for k in range(self.n_classes))

    @field_validator("class_names", "label_names", "target_columns", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        for name in value if isinstance(value, list | tuple) else ():
            if not isinstance(name, str):
                raise ValueError(f"{name!r} is no text in YAML; write it in quotes")
        return value

    @field_validator("target_classes", mode="before")
    @classmethod
    def _texts_of_columns(cls, value: object) -> object:
        for names in value.values() if isinstance(value, dict) else ():
            cls._texts(names)
        return value

    @field_validator("auxiliary")
    @classmethod
    def _plain_names(cls, value: dict[str, AuxiliarySettings]) -> dict[str, AuxiliarySettings]:
        for name in value:
            if not name.isidentifier() or name == "type":
                raise ValueError(
                    f"{name!r} is no name of letters, digits and _ (nor may it be type)"
                )
        return value

    @field_validator("image_path")
    @classmethod
    def _no_python(cls, value: str) -> str:
        # As in {image.__class__}: a template names columns.
        if re.search(r"\{[^{}]*\._", value):
            raise ValueError(f"{value!r}: an attribute that begins with _ is not for templates")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "ProjectSettings":
        self._check_target()
        self._check_columns()
        low, high = self.target_range
        if not low < high:
            raise ValueError(f"target_range: {low} is not below {high}")
        if self.class_values:
            self._check_class_values()
        if self.intensity_range is not None:
            darkest, brightest = self.intensity_range
            if not (isfinite(darkest) and isfinite(brightest) and darkest < brightest):
                raise ValueError(
                    f"intensity_range: {darkest:g} and {brightest:g} must be two finite numbers, "
                    "the lower one first"
                )
        if self.class_names:
            self._check_class_names()
        if self.continuous and len(self.continuous.thresholds) != self.n_classes - 1:
            raise ValueError(
                f"continuous: {len(self.continuous.thresholds)} thresholds for n_classes: "
                f"{self.n_classes}"
            )
        if self.group_column is None and "Group" in self.folds.method:
            raise ValueError(f"group_column: folds/method {self.folds.method} needs one")
        problem = class_weights_problem(self.class_weights, self.form.labels)
        if problem is not None:
            raise ValueError(f"class_weights: {problem}")
        return self

    def _check_target(self) -> None:
        if (self.target_column is None) == (not self.target_columns):
            raise ValueError(
                "target_column: needs the column to predict, or target_columns several of them; "
                "not both"
            )
        if self.several_numbers or self.several_classes:
            self._check_named_columns()
        if self.several_numbers:
            self._check_numbers()
            return
        for key in ("target_ranges", "derived_columns"):
            if getattr(self, key):
                raise ValueError(f"{key}: is for target_kind: numbers; leave it out")
        if self.several_classes:
            self._check_class_targets()
            return
        for key, kinds in (("target_weights", "numbers or classes"), ("target_classes", "classes")):
            if getattr(self, key):
                raise ValueError(f"{key}: is for target_kind: {kinds}; leave it out")
        if (self.label_separator is None) != (not self.label_names):
            raise ValueError("label_separator: needs label_names too, and these need it")
        if not self.several_labels:
            return
        if self.target_columns and self.label_separator is not None:
            raise ValueError("label_separator: is for the labels of target_column; leave it out")
        for key in ("class_values", "class_names", "continuous"):
            if getattr(self, key):
                raise ValueError(f"{key}: labels do not exclude each other; leave it out")
        if (self.target_range, self.n_classes) != ((0, 1), 2):
            raise ValueError("target_range: and n_classes follow from the labels; leave them out")
        names = self.target_columns or self.label_names
        if len(set(names)) < len(names):
            raise ValueError(f"{_key_of_labels(self)}: a name stands twice")
        if not all(name.strip() for name in names):
            raise ValueError(f"{_key_of_labels(self)}: a name is empty")
        separator = self.label_separator
        if separator is None:
            return
        if not separator:
            raise ValueError("label_separator: must have a character")
        for name in names:
            if split_labels(name, separator) != [name]:
                raise ValueError(
                    f"label_names: {name!r} has the separator in it, or blanks around it"
                )

    def _check_named_columns(self) -> None:
        kind = self.target_kind
        check_names(kind, self.target_columns)
        for key in ("class_values", "class_names", "continuous", "label_separator", "label_names"):
            if getattr(self, key):
                raise ValueError(f"{key}: is not for target_kind: {kind}; leave it out")
        check_weights(self.target_weights, (*self.target_columns, *self.derived_columns))

    def _check_class_targets(self) -> None:
        if (self.target_range, self.n_classes) != ((0, 1), 2):
            raise ValueError("target_range: and n_classes follow from target_classes; leave out")
        check_classes(self.target_columns, self.target_classes)

    def _check_numbers(self) -> None:
        names = self.target_columns
        if self.target_classes:
            raise ValueError("target_classes: is for target_kind: classes; leave it out")
        check_ranges(names, self.target_ranges, self.target_range)
        for name, text in self.derived_columns.items():
            if name in (*names, self.id_column, self.group_column, *_ADDED):
                raise ValueError(f"derived_columns: {name}: is the name of another column")
            try:
                parse_formula(text, names)
            except ValueError as error:
                raise ValueError(f"derived_columns: {name}: {error}") from None

    def _check_columns(self) -> None:
        targets = [("target_columns", name) for name in self.target_columns]
        if self.target_column is not None:
            targets = [("target_column", self.target_column)]
        columns = [
            ("id_column", self.id_column),
            *targets,
            ("group_column", self.group_column),
            *_weight_columns(self),
        ]
        for key, column in columns:
            if column in _ADDED:
                raise ValueError(
                    f"{key}: {column}: foldsmith writes a column of this name; rename it in the "
                    "tables"
                )
        named = [column for _, column in columns if column is not None]
        if len(set(named)) < len(named):
            keys = dict.fromkeys(key for key, _ in columns)
            raise ValueError(f"{', '.join(keys)}: must be different columns")

    def _check_class_values(self) -> None:
        low, high = self.target_range
        if len(self.class_values) != self.n_classes:
            raise ValueError(
                f"class_values: {len(self.class_values)} values for n_classes: {self.n_classes}"
            )
        if len(set(self.class_values)) < self.n_classes:
            raise ValueError("class_values: a value stands twice")
        outside = [value for value in self.class_values if not low <= value <= high]
        if outside:
            raise ValueError(
                f"class_values: {outside[0]:g} is outside target_range {low:g}..{high:g}"
            )

    def _check_class_names(self) -> None:
        n = len(self.class_names)
        if len(set(self.class_names)) < n:
            raise ValueError("class_names: a name stands twice")
        if not all(name.strip() for name in self.class_names):
            raise ValueError("class_names: a name is empty")
        if self.n_classes != n or self.target_range != (0, n - 1):
            raise ValueError("class_names: n_classes and target_range follow from them; leave out")
        if self.class_values or self.continuous:
            raise ValueError("class_names: have no order; leave out class_values and continuous")


def _weight_columns(settings: ProjectSettings) -> list[tuple[str, str | None]]:
    """Return key and column of the weights; of one column that has both only the first."""
    learned, judged = settings.sample_weight_column, settings.metric_weight_column
    found: list[tuple[str, str | None]] = [("sample_weight_column", learned)]
    return found if learned == judged else [*found, ("metric_weight_column", judged)]


def _hull(ranges: object) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of ranges as ``target_range``; nothing without ranges."""
    if not isinstance(ranges, dict) or not ranges:
        return {}
    try:
        ends = [(float(low), float(high)) for low, high in ranges.values()]
    except (TypeError, ValueError):
        return {"target_range": (0.0, 1.0)}  # the wrong range itself is named later
    return {"target_range": (min(low for low, _ in ends), max(high for _, high in ends))}


def _key_of_labels(settings: ProjectSettings) -> str:
    return "target_columns" if settings.target_columns else "label_names"
