"""How fast a training is alone, beside a busy process, and beside a second training, on all cores.

Threads of one operation wait for each other. How they wait (spinning, or giving the core away)
may decide what happens when another process needs a core too. Torch's own default, which foldsmith
leaves as it is, is compared with two other policies and with one thread (``globals/threads: 1``),
in turn, in processes of their own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

_POLICIES = {
    "torch's default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
_BATCH, _SIDE = 64, 64


def train(seconds: float) -> None:
    """Train a ResNet18-D on one batch; print images per second."""
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("resnet18d", num_classes=1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.randn(_BATCH, 3, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(images).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    print(json.dumps(_BATCH * steps / (time.perf_counter() - started)))


def start(policy: dict[str, str], seconds: float) -> subprocess.Popen:
    """Start a training in a process of its own."""
    others = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in others} | policy
    command = [sys.executable, __file__, "--train", str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def rate(training: subprocess.Popen) -> float:
    """Wait for a training; return its images per second."""
    return float(json.loads(training.communicate()[0]))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--train", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
        return
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in _POLICIES}
    for _ in range(arguments.rounds):
        for name, policy in _POLICIES.items():
            alone = rate(start(policy, arguments.seconds))
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            beside = rate(start(policy, arguments.seconds))
            busy.kill()
            busy.wait()
            two = sum(map(rate, [start(policy, arguments.seconds) for _ in range(2)]))
            found[name].append((alone, beside, two))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"images/s of a ResNet18-D at {_SIDE} px, {cores} cores; medians")
    print("| how threads wait | alone | beside a busy process | two trainings, their sum |")
    print("|---|---|---|---|")
    for name, rounds in found.items():
        alone, *others = (statistics.median(values) for values in zip(*rounds, strict=True))
        shares = (f"{value:.1f} ({value / alone:.2f})" for value in others)
        print(f"| {name} | {alone:.1f} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
