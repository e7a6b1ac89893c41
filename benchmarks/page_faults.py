"""Memory that a training step gives back and takes again: what the pages cost.

    python benchmarks/page_faults.py

Attention forward and backward at the size of EXP1's stages, in processes of their own by turns, with the C library's
own ways and with panollava's (`processes.keep_freed_memory`, glibc). Prints CPU milliseconds and page faults a step,
medians, and checks that the losses are equal.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

STEPS = """
import resource, sys, time
if sys.argv[2] == "kept":
    from panollava.processes import keep_freed_memory
    keep_freed_memory()
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
width, rows, length, heads = 256, 24, 213, 4
layers = torch.nn.ModuleList(torch.nn.Linear(width, 3 * width) for _ in range(2))
x = torch.randn(rows, length, width)

def step():
    found = x
    for layer in layers:
        parts = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in layer(found).chunk(3, dim=2))
        found = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2)
    loss = found.square().mean()
    loss.backward()
    return loss.item()

for _ in range(3):
    step()
before, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
for _ in range(int(sys.argv[1])):
    loss = step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before.ru_minflt
print(1000 * (time.process_time() - started) / int(sys.argv[1]), faults / int(sys.argv[1]), loss)
"""


def measured(steps: int, way: str) -> tuple[float, float, float]:
    """CPU milliseconds and page faults a step, and the last loss."""
    done = subprocess.run([sys.executable, "-c", STEPS, str(steps), way], capture_output=True, text=True, check=True)
    milliseconds, faults, loss = map(float, done.stdout.split())
    return milliseconds, faults, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="two steps, once")
    given = parser.parse_args()
    steps, repeats = (2, 1) if given.smoke else (given.steps, given.repeats)
    rows: dict[str, list[tuple[float, float, float]]] = {"own": [], "kept": []}
    for _ in range(repeats):
        for way, found in rows.items():
            found.append(measured(steps, way))
    if len({loss for found in rows.values() for *_, loss in found}) != 1:
        sys.exit("the losses differ")
    for way, found in rows.items():
        milliseconds, faults = (statistics.median(one[place] for one in found) for place in (0, 1))
        print(f"{way:<5} {milliseconds:7.1f} CPU ms, {faults:8.0f} page faults a step")


if __name__ == "__main__":
    main()
