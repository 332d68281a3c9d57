"""Stand-in for a program of a cluster: it is the one whose name it is called by.

Each notes how it was called, a line of JSON in the file ``calls`` of the folder ``STAND_INS``.
"""

import json
import os
import signal
import subprocess
import sys
import time

NAME, ARGUMENTS = os.path.basename(sys.argv[0]), sys.argv[1:]
FOLDER = os.environ.get("STAND_INS", "")
ENVIRONMENT = ("SLURM_PROCID", "SLURM_NODEID", "RAY_AUTH_TOKEN")
# Options of srun that the scripts may use.
SRUN = ("nodes", "ntasks", "nodelist", "exclude", "cpus-per-task", "kill-on-bad-exit")


def note(what=None):
    place = {key: os.environ.get(key) for key in ENVIRONMENT}
    call = {"name": NAME, "arguments": ARGUMENTS, "what": what, **place}
    with open(f"{FOLDER}/calls", "a") as file:
        file.write(json.dumps(call) + "\n")


def stay():
    """Work until SIGTERM comes."""

    def end(*_):
        note("SIGTERM")
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
    note()
    time.sleep(20)
    sys.exit(99)


def srun():
    """Run a command once per task, here one per node, and forward SIGTERM."""
    options = {}
    while ARGUMENTS[0].startswith("--"):
        key, _, value = ARGUMENTS.pop(0)[2:].partition("=")
        options[key] = value
    assert set(options) <= set(SRUN), options
    nodes = [f"node{k}" for k in range(1, int(os.environ["SLURM_JOB_NUM_NODES"]) + 1)]
    nodes = [options["nodelist"]] if "nodelist" in options else nodes
    nodes = [node for node in nodes if node != options.get("exclude")]
    number = int(options.get("nodes", len(nodes)))
    assert len(nodes) >= number == int(options.get("ntasks", number)), (nodes, options)
    tasks, ended = [], []

    def forward(*_):
        ended.append(True)
        for task in tasks:
            task.terminate()

    signal.signal(signal.SIGTERM, forward)
    for process, node in enumerate(nodes[:number]):
        if ended:  # while they were started
            break
        more = {"SLURM_PROCID": str(process), "SLURM_NODEID": str(int(node[4:]) - 1)}
        tasks.append(subprocess.Popen(ARGUMENTS, env={**os.environ, **more}))
    if ended:  # in between: the last one may not have been told
        for task in tasks:
            task.terminate()
    sys.exit(max((task.wait() for task in tasks), default=143))


def scontrol():
    if ARGUMENTS[:2] == ["show", "hostnames"]:
        assert ARGUMENTS[2] == "node[1-9]"
        print(*(f"node{k}" for k in range(1, 10)), sep="\n")
    elif ARGUMENTS[:2] == ["show", "job"]:
        state = os.environ["JOB_STATE"]
        print(f"JobId={ARGUMENTS[2]} JobName=foldsmith\n   JobState={state} Reason=None")
    else:
        note()


def torchrun():
    if os.environ.get("WORKS"):
        stay()
    note()
    sys.exit(int(os.environ.get("EXIT_CODE", 0)))


def ray():
    up = f"{FOLDER}/up"
    if ARGUMENTS[0] == "status":
        sys.exit(0 if os.path.exists(up) else 1)
    if os.environ.get("RAY_FAILS"):
        note()
        sys.exit(3)
    if "--head" in ARGUMENTS:
        open(up, "w").close()
    stay()


def foldsmith():
    if ARGUMENTS[0] == "check":
        print(
            "globals:\n  seed: 0\n  output_path: output/000\n  output_root: output/100\nmodel: {}"
        )
        sys.exit(0)
    torchrun()


def hostname():
    print("fe80::7 10.0.0.7 192.168.0.7")


def sleep():
    time.sleep(0.02)


if __name__ == "__main__":
    globals()[NAME]()
