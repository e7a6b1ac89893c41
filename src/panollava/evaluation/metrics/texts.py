"""The texts that a metric scores: n predictions, each with one or more references, and their PTB tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from panollava.evaluation.metrics.ptb import PtbTokens
from panollava.versions import package_version


@dataclass(frozen=True)
class TextSet:
    """`predictions[i]` is scored against all of `references[i]` (at least one); white space is collapsed.

    `protocol` says how samples were arranged, and which recipe scores them.
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    protocol: str = "grouped"
    tokens: PtbTokens = field(default_factory=PtbTokens, repr=False)

    @property
    def coco_tokens(self) -> bool:
        """False for the original project's recipe, which took words as `str.split` gives them."""
        return self.protocol != "original"

    @property
    def nrefs(self) -> str:
        """References of each sample, "var" where their number varies; sacrebleu's word in signatures."""
        numbers = {len(refs) for refs in self.references}
        return str(numbers.pop()) if len(numbers) == 1 else "var"

    def words(self) -> tuple[list[str], list[list[str]]]:
        """Predictions and references as METEOR and CIDEr read them: tokens joined by blanks."""
        if not self.coco_tokens:
            return list(self.predictions), [list(refs) for refs in self.references]
        self.tokens.add(self.captions())
        return (
            [self.tokens[text] for text in self.predictions],
            [[self.tokens[text] for text in refs] for refs in self.references],
        )

    def captions(self) -> list[str]:
        """Every text of the set, predictions first."""
        return [*self.predictions, *(text for refs in self.references for text in refs)]


def signature(texts: TextSet, distribution: str, tokenizer: str, **choices: object) -> str:
    """What a score depends on beside the texts, in the manner of sacrebleu: `key:value|…|protocol:…|version:…`.

    `distribution` is the library's, whose version ends it.
    """
    parts = [f"nrefs:{texts.nrefs}", tokenizer, *(f"{key}:{value}" for key, value in choices.items())]
    return "|".join([*parts, f"protocol:{texts.protocol}", f"version:{package_version(distribution)}"])


@lru_cache(maxsize=1)
def porter_stemmer() -> Any:
    """NLTK's Porter stemmer with its extensions, METEOR's and rouge-score's, which stems each word once."""
    from nltk.stem.porter import PorterStemmer

    stemmer = PorterStemmer()
    stemmer.stem = lru_cache(maxsize=None)(stemmer.stem)
    return stemmer
