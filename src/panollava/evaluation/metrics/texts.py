"""The texts that a metric scores: n predictions, each with one or more references, and their PTB tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from panollava.evaluation.metrics.ptb import PtbTokens


@dataclass(frozen=True)
class TextSet:
    """`predictions[i]` is scored against all of `references[i]` (at least one); white space is collapsed.

    `coco_tokens` is False for the original project's recipe, which took words as `str.split` gives them.
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    coco_tokens: bool = True
    tokens: PtbTokens = field(default_factory=PtbTokens, repr=False)

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
