"""Build the components of an experiment that need no images, tables or memory."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from foldsmith.config import Context, Experiment
from foldsmith.config.check import check_experiment
from foldsmith.config.lazy_types import LazyTypes
from foldsmith.config.named_items import holds_names
from foldsmith.config.references import Key, is_reference, parse_reference, path_text, walk_path
from foldsmith.config.wiring import CONTEXT
from foldsmith.data.datasets import check_transforms
from foldsmith.errors import ConfigError, FoldsmithError, one_line
from foldsmith.models.runtime import weights_on
from foldsmith.steps.inputs.shared import without_pretrained
from foldsmith.steps.registry import DATASETS, LOADERS, MODELS, PROBE_DATASETS
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import create_task, task_types

Types = Mapping[str, Callable[..., Any]]

# Types that read tables or images when they are built.
_READ_DATA = frozenset({**DATASETS, **PROBE_DATASETS, **LOADERS})
# Stands in for the statistics of a project that was not preprocessed yet.
_STATISTICS = {"ChannelStatistics": lambda **_: [0.5, 0.5, 0.5]}
# Parts of the context that are there only while a stage runs.
_OF_A_RUN = ("images", "runtime")


def check_components(experiment: Experiment, types: Types) -> None:
    """Check an experiment, and build the components that need no data.

    Raises:
        ConfigError: One line per problem.
    """
    check_experiment(experiment, types)
    problems = trial_problems(experiment, types)
    if problems:
        raise ConfigError("\n".join(problems))


def trial_problems(experiment: Experiment, types: Types) -> list[str]:
    """Build the components that need no data, and try the loss; return failures, a line each.

    Models of the package are built on torch's device ``meta``, which takes no memory and no
    time; models of a project's own are left to ``doctor``.

    Args:
        experiment: One that :func:`check_experiment` has found in order.
        types: The registry.
    """
    project, settings = experiment.project, experiment.globals
    supervised = settings.task in task_types(project)
    try:
        task = create_task(settings, project) if supervised else None
    except FoldsmithError as error:
        return [f"{experiment.file}: {error}"]
    if "model" in experiment.tree:
        experiment = without_pretrained(experiment)
    context = Context(task=task)
    problems = []
    parts = experiment.build(LazyTypes(types) | _STATISTICS, context)
    built: dict[str, Any] = {}
    for path in _components(experiment):
        name = path_text(path)
        device = weights_on("meta" if path[0] == "model" else "cpu")
        try:
            with device:
                built[name] = parts[name]
        except FoldsmithError as error:
            problems.append(str(error))
        except Exception as error:  # whatever a component of the project's own raises
            problems.append(f"{experiment.file}: {name}: {_said(error)}")
    problems += _transform_problems(experiment, built)
    problems += _optimizer_problems(experiment, types, context)
    if task is not None:
        problems += _loss_problems(experiment, built, task)
    if task is not None and experiment.tree["model"]["type"] in MODELS:
        problems += _output_problems(experiment, built, task)
    return problems


def _components(experiment: Experiment) -> Iterator[Sequence[Key]]:
    """Yield the paths of the calls and lists of calls that can be built without data."""
    tree = experiment.wired
    paths: list[list[Key]] = [["dataset", "mixup"], ["eval", "metric"]]
    paths += [
        ["dataset", name, key]
        for name, child in tree.get("dataset", {}).items()
        if isinstance(child, dict)
        for key in child
        if key.endswith("transforms")
    ]
    # Optimizer, schedule and average wrap a model that is on its device.
    wrappers = ("globals", "ensemble", "optimizer", "scheduler", "ema")
    paths += [[section] for section in tree if section not in wrappers]
    for path in paths:
        try:
            node = walk_path(tree, path)
        except KeyError:
            continue
        call = isinstance(node, dict) and "type" in node
        built = call or isinstance(node, list) or holds_names(path, node)
        own_model = path == ["model"] and _is_own(node, experiment)
        if built and not own_model and not _needs_data(tree, path, set()):
            yield path


def _is_own(node: Any, experiment: Experiment) -> bool:
    """Return whether a node contains a type of the project's own."""
    if isinstance(node, dict):
        own = node.get("type") in experiment.project.types
        return own or any(_is_own(child, experiment) for child in node.values())
    return isinstance(node, list) and any(_is_own(child, experiment) for child in node)


def _needs_data(tree: Mapping[str, Any], path: Sequence[Key], seen: set[str]) -> bool:
    """Return whether the component at a path reads tables or images, also through references."""
    name = path_text(path)
    if name in seen:
        return False
    seen.add(name)
    node = walk_path(tree, path)
    if is_reference(node):
        target, _ = parse_reference(node, path)
        if target and target[0] in CONTEXT:
            return target[0] in _OF_A_RUN
        return _target_needs_data(tree, target, seen)
    if isinstance(node, dict):
        if node.get("type") in _READ_DATA:
            return True
        return any(_needs_data(tree, [*path, key], seen) for key in node)
    if isinstance(node, list):
        return any(_needs_data(tree, [*path, key], seen) for key in range(len(node)))
    return False


def _target_needs_data(tree: Mapping[str, Any], target: Sequence[Key], seen: set[str]) -> bool:
    """Return whether the target of a reference needs data; one behind a reference does."""
    try:
        walk_path(tree, target)
    except KeyError:
        return True  # inside of something that is built first
    return _needs_data(tree, target, seen)


def _transform_problems(experiment: Experiment, built: Mapping[str, Any]) -> Iterator[str]:
    for name, value in built.items():
        if name.endswith("transforms"):
            try:
                check_transforms(value)
            except FoldsmithError as error:
                yield f"{experiment.file}: {name}: {error}"


def _optimizer_problems(experiment: Experiment, types: Types, context: Context) -> Iterator[str]:
    """Yield why the optimizer takes none of its values, tried on one parameter."""
    optimizer = experiment.wired.get("optimizer")
    if not isinstance(optimizer, dict) or "params" not in optimizer:
        return
    alone = experiment.with_values({"optimizer/params": [torch.nn.Parameter(torch.zeros(1))]})
    if any(_needs_data(alone.wired, ["optimizer", key], set()) for key in optimizer):
        return
    try:
        alone.build(types, context)["optimizer"]
    except FoldsmithError as error:
        yield str(error)


def _loss_problems(experiment: Experiment, built: Mapping[str, Any], task: Task) -> Iterator[str]:
    """Yield why the loss of two images cannot be computed."""
    loss = built.get("loss")
    if loss is None:
        return
    labels = torch.from_numpy(task.codes(experiment.project.form.extremes))
    try:
        outputs = torch.zeros(len(labels), task.n_outputs, requires_grad=True)
        with warnings.catch_warnings():
            # Torch broadcasts shapes that do not fit, with no more than a warning.
            warnings.filterwarnings("error", message="Using a target size")
            shape = tuple(loss(outputs, task.encode(labels)).shape)
    except Exception as error:  # whatever a loss of the project's own raises
        yield f"{experiment.file}: loss: fails for outputs of the task {task.name}: {_said(error)}"
        return
    if shape:
        yield (
            f"{experiment.file}: loss: gives a tensor of shape {shape} instead of one number; "
            "its reduction must be mean or sum"
        )


def _output_problems(experiment: Experiment, built: Mapping[str, Any], task: Task) -> Iterator[str]:
    """Yield why the model does not fit its images or its task."""
    model, size = built.get("model"), experiment.tree["dataset"].get("img_size")
    if model is None or not isinstance(size, int):
        return
    try:
        with torch.inference_mode():
            shape = tuple(model.eval()(torch.empty((1, 3, size, size), device="meta")).shape)
    except Exception as error:  # of whichever layer
        yield (
            f"{experiment.file}: model: cannot take images of {size} x {size} px "
            f"(dataset/img_size): {_said(error)}"
        )
        return
    if shape != (1, task.n_outputs):
        yield wrong_outputs(experiment, shape, task)


def wrong_outputs(experiment: Experiment, shape: tuple[int, ...], task: Task) -> str:
    """Return the line for a model whose outputs are not those of its task."""
    return (
        f"{experiment.file}: model: gives outputs of shape {shape[1:]}, but the task "
        f"{task.name} needs ({task.n_outputs},); set model/dims_head=[null, {task.n_outputs}]"
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:200]}"
