"""Two trainings on the same cores: what spinning OpenMP threads cost.

    python benchmarks/spinning_threads.py --seconds 10

Takes small training steps (MLP forward and backward, two threads) for a fixed time, in one process and in two at once,
with libgomp's own waiting and with panollava's (`processes.set_cpu_defaults`), and prints steps per second.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

STEPS = """
import sys, time, torch
torch.set_num_threads(2)
torch.manual_seed(0)
net = torch.nn.Sequential(*(torch.nn.Linear(128, 128) for _ in range(12)))
x = torch.randn(1024, 128)
end, steps = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    net(x).square().mean().backward()
    steps += 1
print(steps)
"""


def rates(processes: int, seconds: float, environment: dict[str, str]) -> list[float]:
    """Steps per second of each of `processes` that run at the same time."""
    command = [sys.executable, "-c", STEPS, str(seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)]
    return [int(process.communicate()[0]) / seconds for process in running]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    seconds = parser.parse_args().seconds
    plain = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for name, environment in (("libgomp's own", plain), ("set_cpu_defaults", {**plain, "GOMP_SPINCOUNT": "2000"})):
        alone, together = rates(1, seconds, environment)[0], rates(2, seconds, environment)
        print(f"{name:<14} alone {alone:7.1f} steps/s, two at once {sum(together):7.1f} steps/s in total")


if __name__ == "__main__":
    main()
