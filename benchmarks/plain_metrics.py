"""Each metric by the library that defines it, called as its own documentation shows: what ours are compared with."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

References = Sequence[Sequence[str]]


def one_answer_each(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows with the first prediction of their (image, query): `grouped` refuses files that answer row by row."""
    first: dict[tuple[str | None, str | None], str] = {}
    return [
        {**row, "prediction": first.setdefault((row.get("image_path"), row.get("original_query")), row["prediction"])}
        for row in rows
    ]


def plain_tokens(predictions: Sequence[str], references: References) -> tuple[list[str], list[list[str]]]:
    """PTB tokens by pycocoevalcap's PTBTokenizer, which starts Java for the references and for the predictions."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    sides = ({i: list(refs) for i, refs in enumerate(references)}, {i: [text] for i, text in enumerate(predictions)})
    with contextlib.redirect_stderr(io.StringIO()):
        theirs, ours = (
            PTBTokenizer().tokenize({i: [{"caption": text} for text in texts] for i, texts in side.items()})
            for side in sides
        )
    return [ours[i][0] for i in range(len(ours))], [theirs[i] for i in range(len(theirs))]


def plain_bleu4(predictions: Sequence[str], references: References) -> float:
    import sacrebleu

    width = max(map(len, references))
    streams: list[Any] = [[refs[k] if k < len(refs) else None for refs in references] for k in range(width)]
    return float(sacrebleu.corpus_bleu(list(predictions), streams).score / 100)


def plain_nltk_bleu(predictions: Sequence[str], references: References) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    return float(
        corpus_bleu(
            [[text.split() for text in refs] for refs in references],
            [text.split() for text in predictions],
            smoothing_function=SmoothingFunction().method1,
        )
    )


def plain_rouge_l(predictions: Sequence[str], references: References) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = [
        scorer.score_multi(list(refs), text)["rougeL"].fmeasure
        for text, refs in zip(predictions, references, strict=True)
    ]
    return float(sum(scores) / len(scores))


def plain_meteor(predictions: Sequence[str], references: References) -> float:
    """Of tokens joined by blanks."""
    from nltk.translate.meteor_score import meteor_score

    from panollava.evaluation.metrics.wordnet import load_wordnet

    scores = [
        meteor_score([ref.split() for ref in refs], text.split(), wordnet=load_wordnet())
        for text, refs in zip(predictions, references, strict=True)
    ]
    return float(sum(scores) / len(scores))


def plain_cider(predictions: Sequence[str], references: References) -> float:
    """Of tokens joined by blanks."""
    from pycocoevalcap.cider.cider import Cider

    score, _ = Cider().compute_score(
        {i: list(refs) for i, refs in enumerate(references)}, {i: [text] for i, text in enumerate(predictions)}
    )
    return float(score)


def plain_metrics(
    predictions: Sequence[str], references: References, words: tuple[Sequence[str], References] | None
) -> dict[str, Callable[[], float]]:
    """One call for each metric of a protocol; `words` are the PTB tokens, None for the original project's recipe."""
    tokens = words or (predictions, references)
    return {
        "bleu4": lambda: (plain_bleu4 if words else plain_nltk_bleu)(predictions, references),
        "meteor": lambda: plain_meteor(*tokens),
        "rouge_l": lambda: plain_rouge_l(predictions, references),
        "cider": lambda: plain_cider(*tokens),
    }
