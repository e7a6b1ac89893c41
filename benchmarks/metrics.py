"""Each metric on a predictions CSV, ours and the library called plainly, in one run: seconds, ratio, difference.

    python benchmarks/metrics.py PREDICTIONS.csv [PROTOCOL …] [--spice]

Seconds are the CPU's, Java's included. WordNet is loaded and the libraries are imported before either side is timed.
`--spice` adds SPICE by our launcher, first as the parses of earlier runs allow, then with every caption parsed before
(there is no plain side: pycocoevalcap's own SPICE does not run on Java 15 or later).
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from plain_metrics import one_answer_each, plain_metrics, plain_tokens

from panollava.evaluation.metrics import METRICS, TextSet
from panollava.evaluation.metrics.java import java_version
from panollava.evaluation.metrics.ptb import PtbTokens
from panollava.evaluation.metrics.wordnet import load_wordnet
from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.protocols import PROTOCOLS, apply_protocol

T = TypeVar("T")
TOLERANCE = 1e-9


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def timed(work: Callable[[], T]) -> tuple[T, float]:
    gc.collect()
    before = cpu_seconds()
    result = work()
    return result, cpu_seconds() - before


def compare(path: Path, protocol: str, spice: bool) -> tuple[float, float]:
    """Print a protocol's table; returns our seconds and the libraries'."""
    rows = read_predictions(path)
    scored = apply_protocol(one_answer_each(rows) if protocol == "grouped" else rows, protocol)
    tokens = PtbTokens()
    texts = TextSet(scored.predictions, scored.references, protocol, tokens)
    print(f"\n{protocol}: {scored.num_samples} samples, {scored.num_references} references")
    print(f"{'':12}{'ours':>10}{'plain':>10}{'ratio':>8}  value, difference")
    words, ours_total, plain_total = None, 0.0, 0.0
    if texts.coco_tokens:
        ours_words, ours = timed(texts.words)
        words, plain = timed(partial(plain_tokens, scored.predictions, scored.references))
        assert ours_words == words, "PTB tokens differ"
        ours_total, plain_total = ours, plain
        print(f"{'PTB tokens':12}{ours:9.2f}s{plain:9.2f}s{plain / ours:8.1f}  equal")
    for name, library in plain_metrics(scored.predictions, scored.references, words).items():
        result, ours = timed(partial(METRICS[name].compute, texts))
        value, plain = timed(library)
        assert result.value is not None and abs(result.value - value) <= TOLERANCE, (name, result.value, value)
        ours_total, plain_total = ours_total + ours, plain_total + plain
        print(f"{name:12}{ours:9.2f}s{plain:9.2f}s{plain / ours:8.1f}  {value:.12f}, {result.value - value:.0e}")
        print(f"{'':12}{result.signature}")
    print(f"{'all':12}{ours_total:9.2f}s{plain_total:9.2f}s{plain_total / ours_total:8.1f}")
    for when in ("SPICE", "SPICE again") if spice else ():
        result, ours = timed(partial(METRICS["spice"].compute, texts))
        print(f"{when:12}{ours:9.2f}s  {result.value}")
    return ours_total, plain_total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("protocols", nargs="*", metavar="PROTOCOL", help=f"{', '.join(PROTOCOLS)}; default: all")
    parser.add_argument("--spice", action="store_true")
    options = parser.parse_args()
    load_wordnet()
    for call in plain_metrics(["a b c d"] * 2, [["a b c d"]] * 2, (["a b c d"] * 2, [["a b c d"]] * 2)).values():
        call()  # imports
    print(f"Java {java_version()}")
    totals = [compare(options.predictions, name, options.spice) for name in options.protocols or PROTOCOLS]
    ours, plain = (sum(column) for column in zip(*totals, strict=True))
    print(f"\neverything: {ours:.2f} s, libraries called plainly {plain:.2f} s: {plain / ours:.1f} times faster")


if __name__ == "__main__":
    main()
