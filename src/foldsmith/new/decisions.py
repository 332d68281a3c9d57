"""The choices of a new project: named, guessed or asked for, each printed with its reason."""

import logging
from collections.abc import Callable, Sequence

import pandas as pd

from foldsmith.data.folds import ClassSizes, few_groups_warning
from foldsmith.errors import DataError
from foldsmith.new.survey.columns import Guess, Source, called_like_class
from foldsmith.new.survey.labels import Labels
from foldsmith.new.survey.targets import Target, is_text, may_be_ids
from foldsmith.project.budget import WORDS, seconds_of
from foldsmith.project.settings import FoldSettings
from foldsmith.targets.metrics import METRICS, Metric, default_metric, names_of
from foldsmith.utils.formatting import brief, counted

logger = logging.getLogger(__name__)

# From a question, the answers and the best guess to an answer.
Ask = Callable[[str, Sequence[str], str], str]

NO_GROUP = "none"

# Answers to the question about the meaning of numbers.
_SCALE, _CLASSES = "scale", "classes"

# From so many images on, the largest models are worth their time.
_LARGE = 20_000


class Decisions:
    """Takes, asks for or guesses columns, and prints each with its reason.

    Args:
        ask: Asks a person if several answers are possible; None without a terminal.
        yes: Ask nothing, and take the column with a usual name.
    """

    def __init__(self, ask: Ask | None, yes: bool) -> None:
        self._ask = None if yes else ask
        self._yes = yes
        self._taken: list[str] = []

    def __call__(
        self, what: str, source: Source, given: str | None, guess: Callable[[], Guess]
    ) -> str:
        """Return the column that there must be."""
        column = self.optional(what, source, given, guess)
        assert column is not None, f"a guess of the {what} is a column or an error"
        return column

    def optional(
        self, what: str, source: Source, given: str | None, guess: Callable[[], Guess]
    ) -> str | None:
        """Return the column, or None if there is none.

        Args:
            what: Name of the flag, without dashes.
            source: The table.
            given: The column that was named.
            guess: Looks for it.

        Raises:
            DataError: Several columns are possible, and there is no terminal to ask.
        """
        column, why = self._choose(what, source, given, guess)
        logger.info(f"{what:<8} {column or 'none'}{why}")
        if column is not None:
            self._taken.append(column)
        return column

    def _choose(
        self, what: str, source: Source, given: str | None, guess: Callable[[], Guess]
    ) -> tuple[str | None, str]:
        """Return the column and why it is the one."""
        columns = source.table.columns
        if given is not None:
            if what == "group" and given == NO_GROUP and given not in columns:
                return None, ", as named"
            source.has(given, f"--{what}")
            return given, ", as named"
        found = guess()
        if found.column is None or not found.others:
            return found.column, f": {found.why}"
        if self._yes and (found.preferred or what == "group"):
            return found.column, f": {found.why} (or {', '.join(found.others)}: --{what})"
        answer = self._answer(what, source, found, found.column)
        return answer if answer in columns else None, ", as answered"

    def _answer(self, what: str, source: Source, found: Guess, best: str) -> str:
        choices = [best, *found.others, *([NO_GROUP] if what == "group" else [])]
        if self._ask is None:
            first = ", or take the first with --yes" if found.preferred or what == "group" else ""
            raise DataError(
                f"{source.file}: which column is the {what}? It may be {', '.join(choices)}; name "
                f"it with --{what}{first}"
            )
        # The user may mean any column, also one that does not look like it.
        known = {*choices, *self._taken}
        others = [name for name in source.table.columns if name not in known]
        return self._ask(f"Which column is the {what}?", [*choices, *others], best)

    def has_order(
        self,
        source: Source,
        column: str,
        metric: Metric | None,
        classes: bool | None,
        folders: bool,
    ) -> bool:
        """Return whether the target is a scale; if not, it is classes without an order.

        Texts and folders are classes, unless a metric of scales is named. Numbers are a scale,
        unless they may be ids of classes, and a metric for classes without an order is named or
        the column has a usual name for classes. In a terminal, a person is asked.

        Args:
            source: The table of the labelled images.
            column: Its target column.
            metric: The metric that was named.
            classes: Whether they are classes, if that was named.
            folders: They are names of folders.

        Raises:
            DataError: The options contradict each other.
        """
        if classes is not None:
            if classes and metric is not None and metric.needs_order:
                raise DataError(
                    f"--classes are without an order, and --metric {metric.title} judges a scale; "
                    "leave out one of them"
                )
            return not classes
        if metric is not None and metric.needs_order:
            return True
        if folders or is_text(source, column):
            return False
        of_probabilities = metric is not None and metric.needs_probabilities
        if of_probabilities or not may_be_ids(source, column):
            return True
        best = _CLASSES if metric is not None or called_like_class(column) else _SCALE
        if self._ask is None:
            return best == _SCALE
        question = (
            f"Are the numbers of {column} a scale, or do they number classes without an order?"
        )
        return self._ask(question, [_SCALE, _CLASSES], best) == _SCALE


def choose_metric(named: Metric | None, target: Target, ordered: bool, column: str) -> Metric:
    """Return the metric, and print how the target is understood, and how to change that."""
    metric = named or default_metric(unordered=not ordered)
    _check_judged(metric, target, ordered, column)
    listed = ", ".join(map(brief, target.labels_in_order[:8]))
    listed += ", ..." if len(target.labels_in_order) > 8 else ""
    if not ordered:
        numeric = all(name.replace("-", "", 1).isdecimal() for name in target.classes)
        logger.info(f"classes  {listed}: no order is assumed")
        # The metrics of ordered classes first.
        ordered_first = sorted(METRICS.values(), key=lambda metric: not metric.of_classes)
        of_scales = names_of([metric for metric in ordered_first if metric.needs_order][:3])
        how = "--scale" if numeric else f"--metric {of_scales}"
        logger.info(f"         (for steps of one scale, in this order: {how})")
    elif target.classes:
        logger.info(f"classes  {listed}: taken for steps of one scale, in this order")
        logger.info("         (for classes without an order: --classes)")
    elif target.few and not metric.needs_probabilities:
        logger.info("classes  the numbers are taken for a scale")
        logger.info("         (where they only number classes: --classes)")
    if target.repeats or not ordered:
        # With a colon: names may be numbers too.
        names = [f"{name}:" for name in target.labels_in_order]
        sizes = ClassSizes.of([f"{name}:" for name in target.labels], names)
        logger.info(f"images   {sizes.summary()}")
        hint = None if ordered else sizes.imbalance(len(target.labels))
        if hint is not None:
            logger.info(f"note: {hint}")
    for note in target.notes:
        logger.info(f"note: {brief(column)}: {note}")
    why = ", as named" if named else ": numbers, a scale" if ordered else ": classes"
    logger.info(f"metric   {metric.title}{why}")
    return metric


def _check_judged(metric: Metric, target: Target, ordered: bool, column: str) -> None:
    """Make sure that a metric can judge the targets.

    Raises:
        DataError: It cannot judge some of them.
        ConfigError: Its options do not fit the number of classes.
    """
    metric.for_classes(target.values_of_classes, unordered=not ordered)
    unjudged = metric.unjudged
    n = 0 if unjudged is None else int(unjudged.among(target.values).sum())
    if unjudged is not None and n:
        raise DataError(
            f"column {column}: {counted(n, 'target is', 'targets are')} {unjudged.text}, which "
            f"--metric {metric.name} cannot judge; mend or leave out these rows, or name another "
            "metric, such as MAE"
        )


def say_labels(labels: Labels) -> None:
    """Print how labels or numbers are understood, and how to change that."""
    for line in labels.summary():
        logger.info(line)


def choose_time(named: str | None, n_images: int) -> str:
    """Return how long a run may take, and print why.

    Args:
        named: The time that was named.
        n_images: Number of images.

    Raises:
        DataError: The named time is none.
    """
    if named is not None:
        try:
            seconds_of(named)
        except ValueError as error:
            raise DataError(f"--time: {error}") from None
        time = WORDS.get(named, named)
        logger.info(f"time     {time}, as named")
        return time
    from foldsmith.models.devices import kind_of_device

    word = "small"
    why = "no GPU"
    if kind_of_device("auto") != "cpu":
        word = "large" if n_images >= _LARGE else "medium"
        why = f"{n_images:,} images and a GPU"
    time = WORDS[word]
    logger.info(f"time     {time}: {why} (for another: --time)")
    return time


def say_folds(
    settings: FoldSettings, why: str, target: Target, groups: pd.Series | None, classes: bool
) -> None:
    """Print how the images are split, and notes on few groups and small classes.

    Args:
        settings: How they are split.
        why: Why in fewer than five folds; empty for none.
        target: The target.
        groups: Group of each image, if there are groups.
        classes: The target has classes.
    """
    n_splits = settings.n_splits
    logger.info(f"folds    {n_splits} by {settings.method}{f': {why}' if why else ''}")
    notes = [] if groups is None else [few_groups_warning(groups.nunique())]
    if classes:
        notes.append(ClassSizes.of(target.labels, target.labels_in_order).warning(n_splits))
    for note in filter(None, notes):
        logger.info(f"note: {note}")


def skip_rows(
    source: Source, wrong: pd.Series, id_column: str, reason: str, skipped: list[dict[str, str]]
) -> Source:
    """Return a table without some rows, and add these to the skipped rows."""
    ids = source.table[id_column][wrong]
    skipped += [{"table": source.file.name, "id": text, "reason": reason} for text in ids]
    return Source(source.table[~wrong].reset_index(drop=True), source.file)
