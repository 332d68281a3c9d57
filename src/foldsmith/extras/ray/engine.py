"""Run the steps of a plan as tasks of Ray: many at once, on one machine or on a cluster.

This module is the client: it finds or starts the run's coordinator (an actor, see
:mod:`foldsmith.extras.ray.coordinator`) and shows the events that it reports. The run goes on
without this process.
"""

import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from foldsmith import __version__
from foldsmith.errors import ConfigError, Detached, OutputError, Stopped, one_line
from foldsmith.extras.ray.coordinator import Coordinator, RunEnd, RunSpec, Update
from foldsmith.project import ProjectFolder
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.run.events import show
from foldsmith.run.live import run_view
from foldsmith.run.node import Node
from foldsmith.run.resources import requests_of
from foldsmith.run.run_state import RunState
from foldsmith.steps.base import Plan

logger = logging.getLogger(__name__)

_NAMESPACE = "foldsmith"

# Seconds between two questions to the coordinator.
_PAUSE_S = 0.25

# Seconds for the head node to answer.
_CONNECT_S = 20.0

# Seconds for the check of a node, and for the end of an actor.
_PATIENCE_S = 120.0


def run_on_ray(
    run_state: RunState, config: Path, asked: tuple[Any, ...], address: str | None
) -> None:
    """Run the chosen steps; failed ones are in its state afterwards.

    Args:
        run_state: The run as it would begin now.
        config: Experiment file that identifies the run.
        asked: Arguments of the command, to recognise another command with the same.
        address: A cluster, where the run may be in progress already; None starts Ray here.

    Raises:
        FoldsmithError: As :func:`foldsmith.run.engine`.
        Detached: A signal has ended the watching, and the run goes on.
    """
    project = run_state.plan.project
    with _connected(address):
        name = _name_of(project, config)
        found = None if address is None else _attach(name, config, asked)
        if found is None:
            run_state.open()
            coordinator, update = _begin(run_state, name, config, asked, address), None
        else:
            coordinator, update = found
            log = _log_of(project, config)
            logger.info(f"attached to the run that is going on; its log is {log}")
        try:
            end = _watch(coordinator, run_state, update)
        except Stopped as stopped:
            if address is None:
                raise
            raise Detached(*stopped.args) from None
    if end.error is not None:
        raise end.error
    run_state.failed |= end.failed


def stop_on_ray(project: ProjectFolder, config: Path, address: str) -> None:
    """Stop a run; as :func:`foldsmith.run.stop`."""
    with _connected(address):
        name = _name_of(project, config)
        coordinator = _find(name)
        if coordinator is None:
            raise ConfigError(f"{config}: no run of it is going on at {address}")
        # Ray ends the tasks of an actor that is no more.
        _end_actor(coordinator, name)
    logger.info("stopped; every finished epoch is kept. The same command without --stop goes on")


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect this process to Ray; a Ray that was started for it ends with the context."""
    if ray.is_initialized():  # by the caller, in Python
        yield
        return
    # Ray's own messages about its nodes are printed without colours.
    for switch in ("RAY_USAGE_STATS_ENABLED", "RAY_COLOR_PREFIX"):
        os.environ.setdefault(switch, "0")
    ours = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    if address is not None:
        _check_address(address)
    try:
        ray.init(
            address=address or "local",
            namespace=_NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if address is None else None,  # of a cluster it is its own
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        if address is None:
            raise OutputError(f"Ray does not start: {one_line(error)[:300]}") from error
        raise ConfigError(
            f"--address {address}: no Ray cluster is to be had there ({one_line(error)[:200]}); "
            "'ray start --head' starts one, and one that asks for tokens needs RAY_AUTH_MODE=token"
        ) from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in ours:  # Ray has set its own
            signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Check that a Ray cluster answers at an address; Ray itself retries for many minutes."""
    where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = where.rpartition(":")
    if where == "auto":
        return
    if not host or "/" in host or not port.isdigit():
        raise ConfigError(
            f"--address {where}: must be HOST:PORT of the head node, or auto; give the command "
            "on a node of the cluster"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise ConfigError(
            f"--address {where}: nobody answers there ({one_line(error)}); 'ray start --head' "
            "starts a cluster and says its address"
        ) from None


def _name_of(project: ProjectFolder, config: Path) -> str:
    """Return the name of the actor of a run: one per project and experiment file."""
    return f"{project.folder} {os.path.relpath(config, project.folder)}"


def _log_of(project: ProjectFolder, config: Path) -> Path:
    return project.path(".foldsmith") / "runs" / f"{config.stem}.log"


def _find(name: str) -> Any:
    """Return the actor of a name; None if there is none."""
    try:
        return ray.get_actor(name, namespace=_NAMESPACE)
    except ValueError:
        return None


def _end_actor(coordinator: Any, name: str) -> None:
    """End an actor, and wait until its name is free."""
    ray.kill(coordinator)
    until = time.monotonic() + _PATIENCE_S
    while _find(name) is not None and time.monotonic() < until:
        time.sleep(0.1)


def _attach(name: str, config: Path, asked: tuple[Any, ...]) -> tuple[Any, Update] | None:
    """Return the coordinator of a run in progress and its first update; None without such a run.

    Raises:
        OutputError: It was asked for something else.
    """
    coordinator = _find(name)
    if coordinator is None:
        return None
    try:
        update: Update = ray.get(coordinator.updates.remote(None, None))
    except ActorDiedError:  # it had ended
        return None
    if update.end is not None or update.progress is None:
        _end_actor(coordinator, name)
        return None
    if update.progress.asked != asked:
        raise OutputError(
            f"{config}: a run of it is going on that was asked for with other values or options; "
            "attach to it with the same command, or stop it with --stop"
        )
    return coordinator, update


def _begin(
    run_state: RunState, name: str, config: Path, asked: tuple[Any, ...], address: str | None
) -> Any:
    """Check the resources of the cluster, and start the run; returns the actor."""
    project = run_state.plan.project
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in known if node["Alive"]]
    nodes = [_node(entry["Resources"]) for entry in alive]
    requests = requests_of(run_state.to_do(), project, nodes)
    _check_nodes(project, alive)
    log = _log_of(project, config)
    log.parent.mkdir(parents=True, exist_ok=True)
    spec = RunSpec(
        project=project,
        steps=run_state.plan.steps,
        chosen=frozenset(step.label for step in run_state.chosen.steps),
        options=run_state.options,
        requests=requests,
        asked=asked,
        log=log,
    )
    # At the head, and nowhere else: without it there is no cluster.
    heads = [node["NodeID"] for node in alive if "node:__internal_head__" in node["Resources"]]
    head = heads[0] if heads else alive[0]["NodeID"]
    actor = ray.remote(Coordinator).options(
        name=name,
        namespace=_NAMESPACE,
        lifetime=None if address is None else "detached",
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=not heads),
    )
    return actor.remote(pickle.dumps(spec))


def _node(resources: dict[str, float]) -> Node:
    memory = resources.get("memory", 0.0) / 2**30
    return Node(resources.get("CPU", 0.0), int(resources.get("GPU", 0.0)), memory)


def _check_nodes(project: ProjectFolder, nodes: list[dict[str, Any]]) -> None:
    """Make sure that every node has the project's folder, and this foldsmith."""
    file = str(project.path(PROJECT_FILE))

    # In here, so that Ray sends its code along: a node may have no foldsmith to look it up in.
    def look() -> tuple[str | None, str | None]:
        from importlib import import_module
        from pathlib import Path

        try:
            version = import_module("foldsmith").__version__
        except ImportError:
            version = None
        try:
            return version, Path(file).read_text(encoding="utf-8")
        except OSError:
            return version, None

    text = project.path(PROJECT_FILE).read_text(encoding="utf-8")
    asked = {}
    for node in nodes:
        pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(look).options(num_cpus=0, scheduling_strategy=pinned)
        asked[f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"] = task.remote()
    problems = []
    for name, answer in asked.items():
        try:
            version, seen = ray.get(answer, timeout=_PATIENCE_S)
        except RayError as error:
            problems.append(f"{name}: does not answer: {one_line(error)[:200]}")
            continue
        if version is None:
            problems.append(f"{name}: has no foldsmith; install {__version__}, as here")
        elif version != __version__:
            problems.append(f"{name}: has foldsmith {version}, here is {__version__}; use one")
        if seen is None:
            problems.append(f"{name}: has no {file}; share the project folder under this path")
        elif seen != text:
            problems.append(f"{name}: has another {file}; share one project folder")
    if problems:
        raise ConfigError("\n".join(problems))


def _watch(coordinator: Any, run_state: RunState, update: Update | None) -> RunEnd:
    """Show a run until it ends.

    Args:
        coordinator: The actor.
        run_state: State of the run when this process started; updated by events.
        update: The first events of a run that was in progress before.
    """
    name, first = None, 0
    if update is not None and update.progress is not None:
        # Files may have been edited since; the steps of the running plan are shown.
        run_state.chosen = Plan(
            run_state.plan.project, update.progress.chosen, run_state.plan.types
        )
    steps = {step.label: step for step in run_state.chosen.steps}
    with run_view(run_state.chosen, run_state.states, run_state.speeds) as view:
        while True:
            if update is None:
                update = _update(coordinator, name, first)
            if update.progress is not None:
                if name is not None:
                    logger.warning("the run's coordinator has died and was begun again")
                run_state.states.update(update.progress.states)
                run_state.speeds.epoch_s.update(update.progress.speeds.epoch_s)
                for label, seconds in update.progress.running.items():
                    view.begin(steps[label], seconds)
            for event in update.events:
                show(event, run_state, steps, view)
            if update.end is not None:
                return update.end
            name, first, update = update.name, update.until, None
            view.draw()
            time.sleep(_PAUSE_S)


def _update(coordinator: Any, name: str | None, first: int) -> Update:
    try:
        update: Update = ray.get(coordinator.updates.remote(name, first))
    except ActorDiedError:
        raise OutputError(
            "the run was stopped by another command, or its cluster has ended; every finished "
            "epoch is kept, and the same command goes on"
        ) from None
    return update
