"""The examples for Slurm and Kubernetes, run as scripts and read as the programs would read them.

There is no cluster here. ``srun``, ``scontrol``, ``torchrun``, ``ray`` and ``foldsmith`` are
stand-ins (``cluster_stand_in.py``): they do with processes of this machine what the real ones do
with nodes, and note what they were called with. Those command lines then go through the parsers of
the real programs.
"""

import json
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import typer.main
import yaml
from bundled import REPOSITORY

from foldsmith.cli.main import app

EXAMPLES = REPOSITORY / "examples" / "cluster"
TORCHRUN, RAY = EXAMPLES / "slurm_torchrun.sbatch", EXAMPLES / "slurm_ray.sbatch"
SCRIPTS = [TORCHRUN, RAY]
FOLDSMITH = typer.main.get_command(app).commands

# A program that is whatever it is called; alone, without what is installed, it starts at once.
STAND_IN = f"#!{sys.executable} -IS\n" + (REPOSITORY / "tests/cluster_stand_in.py").read_text()
PROGRAMS = ("srun", "scontrol", "torchrun", "ray", "foldsmith", "hostname", "sleep")


class Cluster:
    """A job of some nodes, in which a script runs."""

    def __init__(self, folder, nodes):
        self.folder = folder
        for name in ("bin", "project"):
            (folder / name).mkdir()
        for name in PROGRAMS:
            (folder / "bin" / name).write_text(STAND_IN)
            (folder / "bin" / name).chmod(0o755)
        self.environment = {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "STAND_INS": str(folder),
            "JOB_STATE": "RUNNING",
            # What sbatch sets.
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_JOB_NODELIST": "node[1-9]",
            "SLURM_SUBMIT_DIR": str(folder / "project"),
            "SLURM_CPUS_PER_TASK": "32",
            "SLURM_GPUS_ON_NODE": "4",
        }

    def start(self, script, *arguments, **environment):
        return subprocess.Popen(
            ["bash", str(script), *arguments],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script, *arguments, code=0, **environment):
        process = self.start(script, *arguments, **environment)
        output = process.communicate(timeout=30)[0]
        assert process.returncode == code, output
        return output

    def calls(self, name, what=None):
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if (call["name"], call["what"]) == (name, what)]

    def wait_for(self, name, number):
        until = time.monotonic() + 20
        while len(self.calls(name)) < number:
            assert time.monotonic() < until, self.calls(name)
            time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path):
    return lambda nodes=2: Cluster(tmp_path, nodes)


def parse_torchrun(arguments):
    from torch.distributed.run import get_args_parser

    return get_args_parser().parse_args(arguments)


def with_engine():
    return any("--engine" in parameter.opts for parameter in FOLDSMITH["run"].params)


def parse_foldsmith(arguments):
    """Return what the real command line makes of arguments; a wrong one raises."""
    command, *rest = arguments
    if "--engine" in rest and not with_engine():
        at = rest.index("--engine")
        assert rest[at + 1] == "ray" and rest[at + 2] == "--address"
        del rest[at : at + 4]
    return FOLDSMITH[command].make_context(command, rest).params


def parse_ray_start(arguments):
    scripts = pytest.importorskip("ray.scripts.scripts")
    command, *rest = arguments
    assert command == "start"
    return scripts.start.make_context("start", rest).params


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_careful_and_ask_slurm_for_what_it_knows(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n") and "\nset -euo pipefail\n" in text
    asked = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in text.splitlines()
        if line.startswith("#SBATCH")
    )
    known = "job-name nodes ntasks-per-node gpus-per-node cpus-per-task time requeue signal"
    assert set(asked) <= {*known.split(), "open-mode", "output", "exclusive"}
    assert asked["signal"] == "B:TERM@60" and "requeue" in asked and asked["ntasks-per-node"] == "1"
    # Slurm reads them up to the first command.
    assert text.index("set -euo") > text.rindex("#SBATCH")


@pytest.mark.parametrize(("command", "key"), [("pretrain", "000"), ("train", "100")])
def test_one_training_on_several_nodes(cluster, command, key):
    job = cluster(3)
    config = f"exp_config/{key}.yml"
    job.run(TORCHRUN, command, config, "globals/max_epoch=5")
    calls = job.calls("torchrun")
    assert sorted(call["SLURM_NODEID"] for call in calls) == ["0", "1", "2"]
    assert len({tuple(call["arguments"]) for call in calls}) == 1
    parsed = parse_torchrun(calls[0]["arguments"])
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.max_restarts) == ("3", "4", 3)
    assert (parsed.rdzv_backend, parsed.rdzv_endpoint) == ("c10d", "node1:24711")
    assert parsed.rdzv_id == "4711.0"
    assert parsed.module and parsed.training_script == "foldsmith"
    asked = parse_foldsmith(parsed.training_script_args)
    assert (str(asked["config"]), asked["resume"]) == (config, False)
    assert asked["overrides"] == ["globals/max_epoch=5"]
    assert parsed.training_script_args[0] == command
    # The second time there is something to go on with.
    (job.folder / "project/output" / key).mkdir(parents=True)
    job.run(TORCHRUN, command, config, SLURM_RESTART_COUNT="1")
    again = parse_torchrun(job.calls("torchrun")[-1]["arguments"])
    assert parse_foldsmith(again.training_script_args)["resume"] is True
    assert again.rdzv_id == "4711.1"


def test_a_training_that_fails_fails_the_job(cluster):
    job = cluster(1)
    job.run(TORCHRUN, "pretrain", "exp_config/000.yml", code=2, EXIT_CODE="2")
    assert "pretrain or train, not infer" in job.run(TORCHRUN, "infer", "x.yml", code=2)
    assert len(job.calls("torchrun")) == 1 and not job.calls("scontrol")


@pytest.mark.parametrize("state", ["RUNNING", "CANCELLED"])
@pytest.mark.parametrize(
    ("script", "arguments", "working"),
    [
        (TORCHRUN, ["pretrain", "exp_config/000.yml"], "torchrun"),
        (RAY, ["exp_config/900.yml"], "foldsmith"),
    ],
    ids=["torchrun", "ray"],
)
def test_a_job_that_is_cut_off_stops_cleanly_and_comes_back(
    cluster, script, arguments, working, state
):
    job = cluster(1)
    process = job.start(script, *arguments, WORKS="1", JOB_STATE=state)
    job.wait_for(working, 1)
    process.send_signal(signal.SIGTERM)  # to the batch shell alone, as --signal=B:TERM
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 143, output
    assert len(job.calls(working, "SIGTERM")) == 1
    requeued = [call["arguments"] for call in job.calls("scontrol")]
    assert requeued == ([["requeue", "4711"]] if state == "RUNNING" else [])
    assert len(job.calls("ray", "SIGTERM")) == len(job.calls("ray")) == (script == RAY)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_run_on_ray(cluster, nodes):
    job = cluster(nodes)
    job.run(RAY, "exp_config/900.yml", "1*:globals/max_epoch=5")
    started = sorted(job.calls("ray"), key=lambda call: call["SLURM_NODEID"])
    assert started[0]["SLURM_NODEID"] == "0"
    [run] = job.calls("foldsmith")
    engine = run["arguments"][: run["arguments"].index("-cfg")]
    assert engine == ["run", "--engine", "ray", "--address", "10.0.0.7:24711"]
    asked = parse_foldsmith(run["arguments"])
    assert str(asked["config"]) == "exp_config/900.yml"
    assert asked["overrides"] == ["1*:globals/max_epoch=5"]
    # Nothing is left behind, whether or not the workers had joined when the run was over.
    assert len(job.calls("ray", "SIGTERM")) == len(started)
    head, *workers = [parse_ray_start(call["arguments"]) for call in started]
    assert len(workers) <= nodes - 1
    for one in (head, *workers):
        assert (one["num_cpus"], one["num_gpus"], one["block"]) == (32, 4, True)
    assert (head["head"], head["port"], head["node_ip_address"]) == (True, 24711, "10.0.0.7")
    assert len(head["temp_dir"]) < 40  # of the 107 letters that a socket's path may have
    assert all((w["head"], w["address"]) == (False, "10.0.0.7:24711") for w in workers)


def test_every_node_joins(cluster):
    job = cluster(3)
    process = job.start(RAY, "exp_config/900.yml", WORKS="1")
    job.wait_for("ray", 3)
    job.wait_for("foldsmith", 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    nodes = {call["SLURM_NODEID"]: "--head" in call["arguments"] for call in job.calls("ray")}
    assert nodes == {"0": True, "1": False, "2": False}
    # A secret of this job alone, which all of its processes have.
    [secret] = {call["RAY_AUTH_TOKEN"] for call in job.calls("ray") + job.calls("foldsmith")}
    assert re.fullmatch("[0-9a-f]{64}", secret)
    assert len(job.calls("ray", "SIGTERM")) == 3


def test_a_run_that_fails_and_a_head_that_dies_fail_the_job(cluster):
    job = cluster(1)
    job.run(RAY, "exp_config/900.yml", code=2, EXIT_CODE="2")
    (job.folder / "up").unlink()
    output = job.run(RAY, "exp_config/900.yml", code=1, RAY_FAILS="1")
    assert "Ray's head on node1 does not answer at 10.0.0.7:24711" in output


@pytest.mark.skipif(not with_engine(), reason="foldsmith run has no --engine yet")
@pytest.mark.parametrize("address", ["10.0.0.7:24711", "auto"])
def test_run_takes_the_engine(address):
    arguments = ["--engine", "ray", "--address", address, "-cfg", "exp_config/900.yml"]
    params = FOLDSMITH["run"].make_context("run", arguments).params
    assert (params["engine"], params["address"]) == ("ray", address)


# Keys of ray.io/v1 and of the pods in it, as far as an example may use them: (required, possible).
JOB = (
    {"rayClusterSpec", "entrypoint"},
    {
        *("submissionMode", "backoffLimit", "activeDeadlineSeconds", "shutdownAfterJobFinishes"),
        *("ttlSecondsAfterFinished", "runtimeEnvYAML", "suspend", "submitterPodTemplate"),
        *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "metadata"),
    },
)
CLUSTER = (
    {"headGroupSpec", "workerGroupSpecs", "rayVersion"},
    {"authOptions", "enableInTreeAutoscaling"},
)
HEAD = ({"rayStartParams", "template"}, {"serviceType"})
WORKERS = (
    {"groupName", "rayStartParams", "template", "replicas", "minReplicas", "maxReplicas"},
    {"numOfHosts"},
)
POD = ({"containers", "volumes"}, {"terminationGracePeriodSeconds", "restartPolicy"})
CONTAINER = ({"name", "image", "resources", "volumeMounts"}, {"env", "command", "args"})


def has_keys(node, keys):
    required, possible = keys
    assert required <= node.keys() <= required | possible, sorted(node)


def test_the_job_for_kuberay():
    claim, job = yaml.safe_load_all((EXAMPLES / "kuberay_job.yaml").read_text())
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    has_keys(claim["spec"], ({"accessModes", "resources"}, {"storageClassName"}))
    has_keys(job, ({"apiVersion", "kind", "metadata", "spec"}, set()))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    has_keys(spec, JOB)
    assert spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"] is True
    group = spec["rayClusterSpec"]
    has_keys(group, CLUSTER)
    assert isinstance(group["rayVersion"], str) and group["authOptions"] == {"mode": "token"}
    head, workers = group["headGroupSpec"], group["workerGroupSpecs"]
    has_keys(head, HEAD)
    images, folders = set(), set()
    for one in workers:
        has_keys(one, WORKERS)
        assert one["minReplicas"] <= one["replicas"] <= one["maxReplicas"]
    for one in (head, *workers):
        # The operator hands them to "ray start" as they are.
        assert all(isinstance(value, str) for value in one["rayStartParams"].values())
        parse_ray_start(["start", *(f"--{k}={v}" for k, v in one["rayStartParams"].items())])
        pod = one["template"]["spec"]
        has_keys(pod, POD)
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["project"]["persistentVolumeClaim"] == {
            "claimName": claim["metadata"]["name"]
        }
        for container in pod["containers"]:
            has_keys(container, CONTAINER)
            assert container["resources"]["requests"] == container["resources"]["limits"]
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts.keys() == volumes.keys()
            images.add(container["image"])
            folders.add(mounts["project"])
    assert len(images) == len(folders) == 1
    program, *arguments = shlex.split(spec["entrypoint"])
    assert program == "foldsmith"
    assert arguments[arguments.index("--engine") :][:4] == ["--engine", "ray", "--address", "auto"]
    assert str(parse_foldsmith(arguments)["project"]) == folders.pop()


def test_what_is_to_be_submitted_is_said_at_the_top():
    """The commands of the first comment, as the scripts take them."""
    for script, least in ((TORCHRUN, 2), (RAY, 1)):
        head = script.read_text().partition("#SBATCH")[0]
        commands = re.findall(rf"sbatch {script.name} (.*)", head)
        assert len(commands) == 2
        assert all(len(shlex.split(command)) >= least for command in commands)
