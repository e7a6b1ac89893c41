"""METEOR (Banerjee and Lavie 2005; Lavie and Agarwal 2007) by NLTK, on PTB tokens.

NLTK is given a stemmer and a WordNet that remember: each word is looked up once, which changes no match.
"""

from __future__ import annotations

from panollava.evaluation.metrics.ptb import SIGNATURE as PTB
from panollava.evaluation.metrics.result import Metric, MetricResult, mean
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet, porter_stemmer, signature
from panollava.evaluation.metrics.wordnet import Synonyms, load_wordnet

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5


def meteor(texts: TextSet) -> MetricResult:
    """Mean over samples of NLTK's METEOR against the best of the references, 0-1.

    Raises MetricUnavailable without WordNet 3.0 or, for PTB tokens, without Java.
    """
    from nltk.translate.meteor_score import meteor_score

    wordnet, stemmer = Synonyms(load_wordnet()), porter_stemmer()
    predictions, references = texts.words()
    best = [
        meteor_score(
            [reference.split() for reference in refs], prediction.split(),
            stemmer=stemmer, wordnet=wordnet, alpha=ALPHA, beta=BETA, gamma=GAMMA,
        )
        for prediction, refs in zip(predictions, references, strict=True)
    ]  # fmt: skip
    signed = signature(
        texts, METEOR.library, PTB if texts.coco_tokens else "tok:split", case="lc", alpha=ALPHA, beta=BETA,
        gamma=GAMMA, stem="porter", syn="wordnet-3.0", refs="best",
    )  # fmt: skip
    return METEOR.result(mean(best), signed, means(best))


METEOR = Metric("meteor", "METEOR", "0-1", "nltk", meteor, java="for tokens")
