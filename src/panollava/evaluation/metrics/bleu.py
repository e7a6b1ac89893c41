"""BLEU-4 of a corpus (Papineni et al. 2002): sacrebleu, or NLTK where the original project's recipe is asked for.

Tokens and score are the library's. The counts between them are made for all samples at once (`ngrams`), which is
several times faster and gives the same whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from panollava.evaluation.metrics.ngrams import ORDERS, bleu_counts
from panollava.evaluation.metrics.result import MetricResult, package_version
from panollava.evaluation.metrics.sums import SampleSums, nltk_bleu_value, sacrebleu_value
from panollava.evaluation.metrics.texts import TextSet, signature

SCALE = "0-1"


def bleu4(texts: TextSet) -> MetricResult:
    """sacrebleu's corpus BLEU with its defaults (13a tokens, exponential smoothing), divided by 100.

    Of identical texts that is 1 and a rounding error more, which is cut off.
    """
    if not texts.coco_tokens:
        return _original(texts)
    from sacrebleu.metrics.bleu import BLEU

    counts = bleu_counts(texts.predictions, texts.references, _tokens_13a())
    metric = BLEU()
    length, wanted, *rest = (int(total) for total in counts.sum(axis=0))
    score = BLEU.compute_bleu(rest[:ORDERS], rest[ORDERS:], length, wanted, smooth_method=metric.smooth_method).score
    metric.num_refs = int(texts.nrefs) if texts.nrefs.isdigit() else -1
    told = metric.get_signature()
    told.update("protocol", texts.protocol)
    return MetricResult(
        min(score / 100, 1.0), SCALE, "sacrebleu", package_version("sacrebleu"), str(told),
        samples=SampleSums(counts, sacrebleu_value),
    )  # fmt: skip


def _tokens_13a() -> Callable[[str], list[str]]:
    """sacrebleu's default tokenizer. It looks at punctuation and its neighbours, so blanks part words for good."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer = Tokenizer13a()
    return lambda word: [word] if word.isalnum() else tokenizer(word).split()


def _original(texts: TextSet) -> MetricResult:
    """NLTK's `corpus_bleu` with method1, on the words of `str.split`."""
    counts = bleu_counts(texts.predictions, texts.references, lambda word: [word])
    counts[:, 2 + ORDERS :] = counts[:, 2 + ORDERS :].clip(min=1)  # as NLTK counts where a text has no n-gram
    samples = SampleSums(counts, nltk_bleu_value)
    return MetricResult(
        samples.total(), SCALE, "nltk", package_version("nltk"),
        signature(texts, "nltk", "tok:split", case="mixed", smooth="method1"), samples=samples,
    )  # fmt: skip
