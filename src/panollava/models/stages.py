"""What trains in each stage: defined once, here; the log prints it, a test verifies it.

Sets `requires_grad` of a model for a stage, given by name, and returns a table of what trains and what does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from panollava.models.choices import Stage
from panollava.models.parts import STAGE_PARTS

if TYPE_CHECKING:
    from panollava.models.panorama_model import PanoramaModel


@dataclass(frozen=True)
class StageRow:
    """One row of the table: the stage's loss and the parts of a composed model that train (SPEC 7); a native model's
    are those of `NativeVLM.stage_parts` (SPEC 13).

    The vision encoder is not listed: `vision_trainable_blocks` decides for it in every stage
    (0 frozen, N the last N blocks, -1 all).
    """

    loss: Literal["overlap", "ar"]
    trains: tuple[str, ...]

    @property
    def samples(self) -> Literal["panoramas", "rows"]:
        """What an epoch is a pass over: the overlap loss, which reads no text, takes each panorama once."""
        return "panoramas" if self.loss == "overlap" else "rows"


STAGE_TABLE: dict[Stage, StageRow] = {
    "vision": StageRow("overlap", STAGE_PARTS["vision"]),
    "resampler": StageRow("ar", STAGE_PARTS["resampler"]),
    "finetune": StageRow("ar", STAGE_PARTS["finetune"]),
}


@dataclass(frozen=True)
class PartCount:
    """Number of trainable and frozen parameters of one part of the model."""

    part: str
    trainable: int
    frozen: int


def freeze_for_stage(model: PanoramaModel, stage: Stage, vision_trainable_blocks: int) -> list[PartCount]:
    """Set what trains in `stage` and return the counts, part by part."""
    model.set_trainable(model.stage_parts(stage), vision_trainable_blocks)
    return [
        PartCount(
            name,
            sum(p.numel() for p in parameters.values() if p.requires_grad),
            sum(p.numel() for p in parameters.values() if not p.requires_grad),
        )
        for name, parameters in model.named_part_parameters().items()
    ]


def stage_table_text(stage: Stage, counts: list[PartCount]) -> str:
    """The table that the log prints."""
    rows = [
        f"stage {stage}: loss {STAGE_TABLE[stage].loss}",
        f"  {'part':<18}{'trainable':>14}{'frozen':>14}",
    ]
    rows += [f"  {c.part:<18}{c.trainable:>14,}{c.frozen:>14,}" for c in counts]
    total = PartCount("total", sum(c.trainable for c in counts), sum(c.frozen for c in counts))
    rows.append(f"  {total.part:<18}{total.trainable:>14,}{total.frozen:>14,}")
    return "\n".join(rows)
