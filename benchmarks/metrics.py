"""Seconds and values of each metric on a predictions CSV: python benchmarks/metrics.py PREDICTIONS.csv [PROTOCOL …]

Prints CPU seconds of this process (Java's tokenizer runs beside it: wall seconds stand in brackets). Without a file
1,100 made samples with three references each are scored, twice, as EXP1 and its blind control are.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from panollava.evaluation.metrics import METRICS, MetricUnavailable, TextSet
from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.protocols import PROTOCOLS, apply_protocol
from panollava.evaluation.score import score_predictions

T = TypeVar("T")


def timed(name: str, work: Callable[[], T]) -> T:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    print(f"{name:28} {time.process_time() - cpu:7.2f} s  [{time.perf_counter() - wall:.2f}]", end="  ")
    return result


def made_rows(seed: int, references_seed: int = 0) -> list[dict[str, str]]:
    """Rows in the manner of the synthetic data set: template sentences about coloured solids."""

    def caption(draw: random.Random) -> str:
        places = ("in front of you", "behind you", "to your left", "above you")
        solid = f"{draw.choice(('red', 'blue', 'green', 'white'))} {draw.choice(('box', 'sphere', 'cone'))}"
        return f"{draw.choice(places)} is a {solid} and {draw.choice(places)} is the sky"

    answers, people = random.Random(seed), random.Random(references_seed)
    rows = []
    for sample in range(1100):
        answer = caption(answers)
        key = {"image_path": f"{sample // 11}.png", "original_query": f"question {sample % 11}"}
        rows += [{**key, "prediction": answer, "reference": caption(people)} for _ in range(3)]
    return rows


def main(arguments: Sequence[str]) -> None:
    if not arguments:
        report = timed("1,100 samples, twice", lambda: score_predictions(made_rows(1), blind_rows=made_rows(2)))
        print({name: result.value for name, result in report.metrics.items()})
        return
    rows = read_predictions(arguments[0])
    for protocol in arguments[1:] or PROTOCOLS:
        print(f"\n{protocol}")
        scored = apply_protocol(rows, protocol)
        texts = TextSet(scored.predictions, scored.references, protocol != "original")
        timed("PTB tokens", texts.words)
        print(f"{len(texts.captions())} captions")
        for name, metric in METRICS.items():
            try:
                print(timed(name, partial(metric, texts)).value)
            except MetricUnavailable as missing:
                print(missing)


if __name__ == "__main__":
    main(sys.argv[1:])
