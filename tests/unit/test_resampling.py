"""Intervals and paired tests: sums are the metrics', images are drawn and not rows, the test keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest

from panollava.evaluation.console import summary_lines
from panollava.evaluation.metrics import TextSet
from panollava.evaluation.metrics.bleu import bleu4
from panollava.evaluation.metrics.sums import SampleSums, means, nltk_bleu_value, ratios, sacrebleu_value
from panollava.evaluation.resampling import difference_of, holm, interval_of, units_of
from panollava.evaluation.score import score_predictions


def sums_of_ngrams() -> np.ndarray:
    """Lengths and counts as captions give them, with every way in which an order can be empty or without a match."""
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(500):
        length = int(rng.integers(0, 9))
        counts = [max(0, length - n) for n in range(4)]
        matches, most = [], length
        for count in counts:
            most = min(most, count)
            most = int(rng.integers(0, most + 1)) if rng.random() < 0.7 else most
            matches.append(most)
        rows.append([length, int(rng.integers(1, 9)), *matches, *counts])
    return np.array(rows, dtype=float)


def test_bleu_of_sums_is_sacrebleus() -> None:
    from sacrebleu.metrics.bleu import BLEU

    sums = sums_of_ngrams()
    expected = [
        BLEU.compute_bleu(
            row[2:6].astype(int).tolist(), row[6:].astype(int).tolist(), int(row[0]), int(row[1]), smooth_method="exp"
        ).score / 100
        for row in sums
    ]  # fmt: skip
    np.testing.assert_allclose(sacrebleu_value(sums), expected, rtol=1e-12, atol=0)
    assert 0 < np.count_nonzero(expected) < len(expected)


def test_bleu_of_sums_is_nltks() -> None:
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    rng = np.random.default_rng(2)
    for size in (1, 2, 40):
        texts = [" ".join(rng.choice(list("abcde"), int(rng.integers(0, 8)))) for _ in range(2 * size)]
        found = bleu4(TextSet(texts[:size], [[text] for text in texts[size:]], protocol="original"))
        expected = corpus_bleu(
            [[text.split()] for text in texts[size:]], [text.split() for text in texts[:size]],
            smoothing_function=SmoothingFunction().method1,
        )  # fmt: skip
        assert found.value == pytest.approx(float(expected), rel=1e-12)
    assert nltk_bleu_value(np.array([0.0, 3, 0, 0, 0, 0, 0, 0, 0, 0])) == 0


ROWS = [
    {"image_path": f"i{n // 3}", "original_query": f"q{n}", "prediction": text, "reference": "a red box behind you"}
    for n, text in enumerate(["a red box behind you", "a blue box", "the sky", "", "behind you", "a red cone"] * 5)
]


@pytest.mark.parametrize("protocol", ["grouped", "per-annotation", "original"])
def test_every_metrics_sums_give_its_score(protocol: str) -> None:
    report = score_predictions(ROWS, protocol, bootstrap_samples=50)
    for name, result in report.metrics.items():
        if result.value is None:
            continue  # a part is missing here
        assert result.samples is not None and len(result.samples.per_sample) == len(ROWS), name
        assert result.samples.total() == pytest.approx(result.value, abs=1e-12), name
        assert result.interval is not None and result.interval[0] <= result.value <= result.interval[1], name
    assert report.intervals is not None and report.intervals["units"] == 10
    assert report.intervals["resampled"] == "images"


def test_images_are_drawn_and_not_rows() -> None:
    """Rows of one picture that say the same hold one picture's news: the interval is that of the pictures."""
    scores = np.random.default_rng(0).normal(size=40)
    by_image = interval_of(means(np.repeat(scores, 25)), [n // 25 for n in range(1000)], 2000)
    pictures = interval_of(means(scores), range(40), 2000)
    by_row = interval_of(means(np.repeat(scores, 25)), range(1000), 2000)
    assert by_image == pytest.approx(pictures) and by_row is not None and pictures is not None
    assert pictures[1] - pictures[0] > 4 * (by_row[1] - by_row[0])
    assert pictures[1] - pictures[0] == pytest.approx(2 * 1.96 * scores.std() / np.sqrt(40), rel=0.1)


def test_rows_without_a_picture_are_units_of_their_own() -> None:
    assert units_of([{"image_path": "b"}, {"image_path": "a"}, {"image_path": "b"}]) == [0, 1, 0]
    assert units_of([{}, {"image_path": ""}, {}]) == [0, 1, 2]


def test_intervals_repeat() -> None:
    samples = means([0.0, 1.0, 0.5, 0.2, 0.9, 0.1])
    found = interval_of(samples, range(6), 100)
    assert found is not None and found == interval_of(samples, range(6), 100)
    assert interval_of(ratios([(1, 2), *[(0, 0)] * 7]), range(8), 100) is None  # most draws have no score


def test_few_panoramas_have_no_interval_and_a_few_more_a_remark() -> None:
    """Rows do not count: ten about five panoramas are five."""
    samples = means([0.0, 1.0, 0.5, 0.2, 0.9] * 2)
    assert interval_of(samples, [0, 1, 2, 3, 4] * 2, 100) is None
    assert difference_of(samples, samples, [0, 1, 2, 3, 4] * 2, 100).interval is None
    assert interval_of(samples, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3], 100) is not None
    for pictures, note in (
        (2, "no intervals: the test set has 2 panoramas, they need at least 6"),
        (5, "no intervals: the test set has 5 panoramas, they need at least 6"),
        (6, "intervals of 6 panoramas are too narrow: 95 % needs at least 10"),
        (9, "intervals of 9 panoramas are too narrow: 95 % needs at least 10"),
        (10, None),
    ):
        report = score_predictions(ROWS[: 3 * pictures], metrics=["rouge_l"], bootstrap_samples=50)
        assert report.intervals is not None and report.intervals["note"] == note
        assert report.intervals["units"] == pictures
        assert (report.metrics["rouge_l"].interval is None) == (pictures < 6)
        lines = summary_lines(report.to_json())
        assert [line for line in lines if "panoramas" in line] == ([note] if note else [])
    unnamed = [{**row, "image_path": ""} for row in ROWS[:7]]
    report = score_predictions(unnamed, metrics=["rouge_l"], bootstrap_samples=50)
    assert report.intervals is not None and report.intervals["note"].startswith("intervals of 7 rows are too narrow")


def test_many_units_are_drawn_in_blocks_and_every_one_of_them() -> None:
    interval = interval_of(means(np.arange(30_000.0)), range(30_000), 200)
    assert interval is not None and interval[0] < 14_999.5 < interval[1] and interval[1] - interval[0] < 500


def pair(shift: float, seed: int, units: int = 60) -> tuple[SampleSums, SampleSums]:
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=units)  # what both find hard
    return means(hard + rng.normal(0, 0.1, units)), means(hard + shift + rng.normal(0, 0.1, units))


def test_a_real_difference_is_found_though_the_scores_overlap() -> None:
    first, second = pair(0.1, seed=0)
    found = difference_of(first, second, range(60), 1000)
    assert found.p is not None and found.p < 0.01 and found.interval is not None and found.interval[0] > 0
    low, high = interval_of(first, range(60), 1000), interval_of(second, range(60), 1000)
    assert low is not None and high is not None and low[1] > high[0]  # unpaired intervals would not have told


def test_where_nothing_differs_one_test_in_twenty_says_so() -> None:
    p_values = []
    for seed in range(200):
        found = difference_of(*pair(0.0, seed), range(60), 200).p
        assert found is not None
        p_values.append(found)
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.1
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.07)


def test_equal_answers_do_not_differ_and_few_pictures_prove_nothing() -> None:
    samples = means([0.2, 0.4, 0.9, 0.1, 0.5, 0.6])
    same = difference_of(samples, samples, range(6), 500)
    assert (same.value, same.interval, same.p) == (0.0, (0.0, 0.0), 1.0)
    far = difference_of(means([0.0, 0.0, 0.0]), means([1.0, 1.0, 1.0]), [0, 1, 2], 2000)
    assert far.p is not None and far.p == pytest.approx(0.25, abs=0.05)  # two of eight exchanges
    assert difference_of(samples, samples, [0] * 6, 500).p is None


def test_corpus_scores_are_compared_by_their_sums() -> None:
    good = bleu4(TextSet(["a b c d e f"] * 30, [["a b c d e f"]] * 30)).samples
    bad = bleu4(TextSet(["a b c d x f"] * 30, [["a b c d e f"]] * 30)).samples
    assert good is not None and bad is not None
    found = difference_of(bad, good, range(30), 1000)
    assert found.value == pytest.approx(1 - bad.total()) and found.p is not None and found.p < 0.01


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
