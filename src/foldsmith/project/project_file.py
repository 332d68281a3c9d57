"""The opened project: its folder, settings, own Python and metric."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from foldsmith.errors import ConfigError
from foldsmith.project.own_files import OwnFile, own_file
from foldsmith.project.own_python import load_types, read_sources, require_accepted
from foldsmith.project.settings import FOLD_METHOD_SHORT, ProjectSettings
from foldsmith.project.validation import validation_message
from foldsmith.targets.metric_text import split_metric
from foldsmith.targets.metrics import Metric, component, names_of
from foldsmith.utils.suggest import did_you_mean
from foldsmith.utils.yaml_io import read_yaml

if TYPE_CHECKING:
    from typing_extensions import Self

PROJECT_FILE = "project.yml"


class ProjectFolder:
    """An opened project folder.

    Attributes:
        folder: Absolute path of the project folder.
        settings: Contents of ``project.yml``.
        form: The form of its target.
        types: Components of the project's own Python, by name.
        metrics: The package's metrics of this form and the project's own, by name; of two with one
            name the project's.
        metric: The one that judges the project, with the project's classes.
        source_files: ``project.yml`` and the project's own Python files.
        own_files: The project's own Python files, in the order of the list.
    """

    def __init__(
        self,
        folder: Path,
        settings: ProjectSettings,
        *,
        trust: bool = False,
        remembered: bool = True,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.form = settings.form
        file = folder / PROJECT_FILE
        sources = read_sources(file, settings.python)
        require_accepted(file, sources, trust, remembered)
        self.source_files = [file, *sources]
        self.types: dict[str, Callable[..., Any]] = {}
        self.metrics: dict[str, Metric] = {
            name: self.form.judge(metric) for name, metric in self.form.metrics.items()
        }
        self.own_files: list[OwnFile] = []
        for path, source in sources.items():
            for name, offered in load_types(path, source).items():
                if isinstance(offered, Metric):
                    self.metrics[name] = self.form.judge(_own_metric(path, name, offered))
                    offered = component(offered)
                self.types[name] = offered
            self.own_files.append(own_file(folder, path, source))
        self.metric = self._chosen_metric()

    def _chosen_metric(self) -> Metric:
        """Return the metric that ``project.yml`` names.

        Raises:
            ConfigError: There is none of that name, or it cannot judge the project's classes.
        """
        file = self.folder / PROJECT_FILE
        try:
            name, options = split_metric(self.settings.metric)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
        if name not in self.metrics:
            if name in self.types:
                raise ConfigError(
                    f"{file}: metric: {name} is not a Metric; write it into TYPES as "
                    f'"{name}": Metric("{name}", FUNCTION, greater_is_better=...)'
                )
            raise ConfigError(
                f"{file}: metric: there is no metric {name}{self.form.of_kind}"
                f"{did_you_mean(name, self.metrics)}"
            )
        metric, unordered = self.metrics[name], self.form.unordered
        if metric.needs not in self.form.needs:
            raise ConfigError(
                f"{file}: metric: {name} needs {metric.needs}, but the target is {self.form.kind}"
            )
        if unordered and metric.needs_order:
            known = names_of(m for m in self.metrics.values() if not m.needs_order)
            raise ConfigError(
                f"{file}: metric: {name} is of an order that class_names do not have; take {known}"
            )
        if self.settings.metric_weight_column is not None and not metric.takes_weights:
            raise ConfigError(
                f"{file}: metric_weight_column: {name} cannot weigh rows; give its function a "
                "keyword argument sample_weight, or leave it out"
            )
        try:
            return metric.with_options(options).for_classes(self.class_values, unordered)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process its own Python, which was accepted here, is run anew; the settings
        # stay those of here.
        return _accepted_before, (self.folder, self.settings)

    @classmethod
    def open(
        cls, folder: Path | str = ".", *, trust: bool = False, remembered: bool = True
    ) -> "Self":
        """Open the project in ``folder``.

        Args:
            folder: The project folder.
            trust: Run the Python that the project brings (``python`` in its file). Once it was
                accepted so it needs not be again, until a file changes.
            remembered: Whether it counts that the same Python was accepted before, and will
                count that it is now.

        Raises:
            ConfigError: There is no project file, it is wrong, or the project brings Python that
                was not accepted.
        """
        path = Path(folder).resolve() / PROJECT_FILE
        if not path.is_file():
            raise ConfigError(
                f"{path}: no such file; run the command inside a project folder, "
                "or name one with --project DIR"
            )
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: must be a list of 'key: value' lines")
        try:
            settings = ProjectSettings.model_validate(content)
        except ValidationError as error:
            raise ConfigError(validation_message(str(path), error, ProjectSettings)) from None
        return cls(path.parent, settings, trust=trust, remembered=remembered)

    def path(self, relative: str | Path) -> Path:
        """Return a path given in the project's YAML, relative to the project folder."""
        return self.folder / relative

    @property
    def data_dir(self) -> Path:
        """Folder of the tables and images."""
        return self.path(self.settings.data_dir)

    @property
    def fold_table(self) -> Path:
        """Where ``preprocess`` writes the train table with the column ``fold``."""
        folds = self.settings.folds
        stem = Path(self.settings.train_csv).stem
        return self.data_dir / f"{stem}_{FOLD_METHOD_SHORT[folds.method]}-{folds.n_splits}fold.csv"

    @property
    def hash_store(self) -> Path:
        """Where the hashes of files are kept between commands; it may be deleted."""
        return self.path(".foldsmith") / "file_hashes"

    @property
    def image_facts(self) -> Path:
        """Folder of the stored measurements of images; it may be deleted."""
        return self.path(".foldsmith") / "image_facts"

    @property
    def measurements(self) -> Path:
        """File with the measured choices of each device; it may be deleted."""
        return self.path(".foldsmith") / "measurements.json"

    @property
    def baselines(self) -> Path:
        """File with the scores of simple baselines; it may be deleted."""
        return self.path(".foldsmith") / "baselines.json"

    @property
    def image_store(self) -> Path:
        """Where decoded images are kept; it may be deleted while nothing runs."""
        return self.path(".foldsmith") / "images"

    @property
    def intensity_range(self) -> tuple[float, float] | None:
        """Values that become 0 and 255 in images with more than 8 bits per channel."""
        return self.settings.intensity_range

    @property
    def n_splits(self) -> int:
        """Number of folds."""
        return self.settings.folds.n_splits

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.settings.n_classes

    @property
    def class_values(self) -> list[float]:
        """Target value of each class, in order."""
        return list(self.form.class_values)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Texts of the classes, where they have no order; none if the target is a number."""
        return self.settings.class_names

    @property
    def target_range(self) -> tuple[float, float]:
        """Lowest and highest possible target."""
        return self.form.target_range

    @property
    def loss_weights(self) -> list[float]:
        """Weight of each of several numbers or class targets in a loss; empty for others."""
        return list(self.form.loss_weights)

    @property
    def block_sizes(self) -> list[int]:
        """Number of classes of each of several class targets; empty for other targets."""
        return list(self.form.block_sizes)


def _own_metric(path: Path, name: str, metric: Metric) -> Metric:
    """Return a metric of a project's own Python.

    Raises:
        ConfigError: It has another name than the one that YAML uses.
    """
    if metric.name != name:
        raise ConfigError(
            f"{path}: TYPES: {name}: the metric is called {metric.name}; give both the same name"
        )
    return metric


def _accepted_before(folder: Path, settings: ProjectSettings) -> ProjectFolder:
    """Return a project that a process was sent by one that has opened it."""
    return ProjectFolder(folder, settings, trust=True, remembered=False)
