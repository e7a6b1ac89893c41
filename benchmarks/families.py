"""Every causal language model that transformers maps, as `models.language_model_name`: which work, and how.

    python benchmarks/families.py                          # all: hours on a small machine; a killed run goes on
    python benchmarks/families.py --families llama bert    # some
    python benchmarks/families.py --smoke                  # twelve, as CI runs them
    python benchmarks/families.py --markdown               # the short form of what is known: docs/models.md

Each family gets a tiny random folder (`family_folders.py`) and goes through the project's own code: load and probes,
LoRA with the default dropout, a training step, answers, one picture for two rows, save and reload, merge. Verdicts:
`ok`; `refused`, before anything trains, with the reason; `FAIL`, a difference or a traceback; `not built`, where
transformers itself makes no tiny model. `share` is the adapted part of the blocks' weights. Results lie in a JSON lines
file; a family that stands there is not tried again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from family_folders import FAMILIES, SMOKE, build_folder
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.utils import logging as transformers_logging

from panollava.errors import PanollavaError
from panollava.models.adapters import adapted_names, block_experts, block_linears, without_gradient
from panollava.models.config import LoraSettings, ModelConfig
from panollava.models.stages import freeze_for_stage
from panollava.models.vlm import PanoramaVLM

QUERIES = ["what is it?", "where is the blue sphere behind you, on your left, in front of the red box?"]
ANSWERS = ["a red box on your left", "behind you"]
SECONDS = 300  # a family that takes longer has failed


def vision_folder(root: Path) -> Path:
    folder = root / "vision"
    if not folder.is_dir():
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=16, patch_size=4)).save_pretrained(folder)
    return folder


def try_family(root: Path, family: str) -> dict[str, Any]:
    """One row: family, class, verdict, what, share."""
    row: dict[str, Any] = {"family": family, "class": "", "verdict": "ok", "what": "", "share": None}
    try:
        folder = build_folder(root, family)
    except Exception as error:  # transformers' own: nothing of ours has run
        return row | {"verdict": "not built", "what": _told(error)}
    config = ModelConfig(
        vision_path=str(vision_folder(root)), language_path=str(folder), latent_dimension=24, crop_strategy="e2p",
        fov_deg=120.0, overlap_ratio=0.25, use_vision_processor=False,
        lora=LoraSettings(rank=2, alpha=4.0, dropout=0.1),
    )  # fmt: skip
    notes: list[str] = []
    try:
        torch.manual_seed(0)
        model = PanoramaVLM(config)
    except PanollavaError as error:
        return row | {"verdict": "refused", "what": _told(error).replace(f"{folder} ", "")}
    except Exception as error:
        return row | {"verdict": "FAIL", "what": f"load: {_told(error)}"}
    assert model.language is not None
    row["class"] = type(model.language.model.get_base_model()).__name__
    row["share"], left_out = share_of(model)
    notes += [f"not adapted: {', '.join(left_out)}"] if left_out else []
    notes += [] if model.language.pads_left else ["answers one by one"]
    notes += [] if model.language.supports_prefix_cache else ["reads a picture for each row"]
    faults = []
    for check in (check_step, check_losses, check_answers, check_export, check_merge):
        try:
            if (found := check(model, root / "exported" / family)) is not None:
                (notes if found.startswith("merge refused") else faults).append(found)
        except Exception as error:
            faults.append(f"{check.__name__.removeprefix('check_')}: {_told(error)}")
            if "--debug" in sys.argv:
                traceback.print_exc()
    return row | ({"verdict": "FAIL", "what": "; ".join(faults)} if faults else {"what": "; ".join(notes)})


def share_of(model: PanoramaVLM) -> tuple[float, list[str]]:
    """Adapted part of the weights of linear layers and experts in the blocks; names of what is left out."""
    assert model.language is not None
    adapted = {name.removesuffix(".weight") for name in adapted_names(model.language.model)}
    base = model.language.model.get_base_model()
    sizes: dict[str, int] = {}
    for name, parameter in base.named_parameters():
        plain = name.replace(".base_layer", "").removesuffix(".weight")
        if parameter.ndim >= 2 and ".lora_" not in name:
            sizes[plain] = parameter.numel()
    inside = {
        name.replace(".base_layer", "").removesuffix(".weight") for name in (*block_linears(base), *block_experts(base))
    }
    inside = {name for name in inside if ".lora_" not in name}
    total = sum(sizes.get(name, 0) for name in inside | adapted)
    left_out = sorted({name.rpartition(".")[2] for name in inside - adapted})
    return sum(sizes.get(name, 0) for name in adapted) / max(1, total), left_out


def check_step(model: PanoramaVLM, _: Path) -> str | None:
    """Two optimiser steps: the loss is finite and falls, every adapter gets a gradient, nothing else moves."""
    freeze_for_stage(model, "finetune", 0)
    model.train()
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _step in range(3):
        loss = model(pixels_of(model), **batch_of(model), stage="finetune")["loss"]
        optimizer.zero_grad()
        loss.backward()
        if untouched := without_gradient(model.named_parameters()):
            return f"{len(untouched)} adapter tensors without gradient ({untouched[0]})"
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    if not losses[-1] < losses[0]:
        return f"the loss does not fall: {losses}"
    moved = [name for name, p in model.named_parameters() if name in frozen and not torch.equal(p, frozen[name])]
    return f"a frozen weight moved: {moved[0]}" if moved else None


@torch.no_grad()
def check_losses(model: PanoramaVLM, _: Path) -> str | None:
    """Logits of rows together as of each alone, and with a picture read once for two rows."""
    pixels, batch = pixels_of(model, 1).expand(2, -1, -1, -1, -1).contiguous(), batch_of(model)
    together = model(pixels, **batch, stage="finetune")["logits"]
    alone = []
    for number in range(2):
        length = int(batch["attention_mask"][number].sum())
        row = {key: value[number : number + 1, :length] for key, value in batch.items()}
        alone.append(model(pixels[:1], **row, stage="finetune")["logits"])
    if (apart := _apart(together, torch.cat(alone))) > 1e-3:
        return f"rows together differ from alone by {apart:.2g}"
    once = model(pixels[:1], **batch, image_index=torch.tensor([0, 0]), stage="finetune")["logits"]
    return f"a picture read once differs by {apart:.2g}" if (apart := _apart(once, together)) > 1e-3 else None


@torch.no_grad()
def check_answers(model: PanoramaVLM, _: Path) -> str | None:
    """Answers to prompts of unequal length together as one by one."""
    pixels = pixels_of(model)
    together = model.generate(pixels, QUERIES, max_new_tokens=6)["generated_ids"]
    for number, query in enumerate(QUERIES):
        alone = model.generate(pixels[number : number + 1], [query], max_new_tokens=6)["generated_ids"][0]
        if not torch.equal(together[number, : len(alone)], alone):
            return "answers together differ from one by one"
    return None


@torch.no_grad()
def check_export(model: PanoramaVLM, folder: Path) -> str | None:
    before = model(pixels_of(model), **batch_of(model), stage="finetune")["logits"]
    model.save_pretrained(folder)
    again = PanoramaVLM.from_pretrained(folder)
    apart = _apart(again(pixels_of(model), **batch_of(model), stage="finetune")["logits"], before)
    return f"saved and loaded again: differs by {apart:.2g}" if apart > 1e-4 else None


@torch.no_grad()
def check_merge(model: PanoramaVLM, _: Path) -> str | None:
    before = model(pixels_of(model), **batch_of(model), stage="finetune")["logits"]
    try:
        model.merge_lora()
    except PanollavaError as error:
        return f"merge refused: {_told(error)}"
    apart = _apart(model(pixels_of(model), **batch_of(model), stage="finetune")["logits"], before)
    return f"merged: differs by {apart:.2g}" if apart > 1e-3 else None


def pixels_of(model: PanoramaVLM, count: int = 2) -> Tensor:
    size = (count, len(model.views), 3, *model.vision.spec.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(3))


def batch_of(model: PanoramaVLM) -> dict[str, Tensor]:
    assert model.prompt is not None
    rows = [model.prompt.training(q, a, 96) for q, a in zip(QUERIES, ANSWERS, strict=True)]
    return dict(model.prompt.collate(rows, "right"))  # type: ignore[arg-type]


def _apart(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - wanted).abs().max() / wanted.std())


def _told(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return line[:220] if isinstance(error, PanollavaError) else f"{type(error).__name__}: {line[:160]}"


def run_apart(job: Callable[[], dict[str, Any]], family: str) -> dict[str, Any]:
    """The job's result from a process of its own: a family cannot end the others, nor keep its memory."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        os.close(reader)
        with os.fdopen(writer, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(job()))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if text:
        found: dict[str, Any] = json.loads(text)
        return found
    what = f"not finished in {SECONDS} s" if status == signal.SIGALRM else f"the process ended with {status}"
    return {"family": family, "class": "", "verdict": "FAIL", "what": what, "share": None}


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| family | class | verdict | share | what |", "|---|---|---|---|---|"]
    for row in rows:
        share = "" if row["share"] is None else f"{row['share']:.2f}"
        what = row["what"].replace("|", "\\|")
        lines.append(f"| {row['family']} | {row['class']} | {row['verdict']} | {share} | {what} |")
    return "\n".join(lines)


def counts(rows: Sequence[dict[str, Any]]) -> str:
    found = Counter(row["verdict"] for row in rows)
    return ", ".join(f"{count} {verdict}" for verdict, count in found.most_common()) + f" of {len(rows)} families"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The short form: names by verdict and remark, the reason of each that is refused."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        what = _remark(row["what"]) if row["verdict"] == "ok" else _reason(row["what"])
        groups.setdefault((row["verdict"], what), []).append(row["family"])
    order = {"ok": 0, "refused": 1, "not built": 2, "FAIL": 3}
    lines = ["| | families | why |", "|---|---|---|"]
    for (verdict, what), names in sorted(groups.items(), key=lambda item: (order[item[0][0]], -len(item[1]))):
        lines.append(f"| {verdict} | {', '.join(names)} | {what.replace('|', chr(92) + '|')} |")
    return f"{counts(rows)}:\n\n" + "\n".join(lines)


def _remark(what: str) -> str:
    parts = (part.partition(":")[0] for part in what.split("; ") if part)
    return "; ".join(part.replace("not adapted", "some layers are not adapted") for part in parts)


def _reason(what: str) -> str:
    """Without names, numbers and advice, so that families of one kind stand together."""
    what = re.sub(r"^(\S+: |\(\w+\) )| \([\d.e+-]+ standard deviations[^)]*\)", "", what)
    return re.split(r", so |, but |; | for a |, and tha|: it would|: it looks|: it hashes", what)[0][:120]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, metavar="FAMILY", help="some of the families")
    parser.add_argument("--smoke", action="store_true", help="twelve families of different kinds")
    parser.add_argument("--results", type=Path, help="where finished families stand; --smoke: nowhere")
    parser.add_argument("--markdown", action="store_true", help="print the short form of what is finished, try nothing")
    parser.add_argument("--debug", action="store_true", help="tracebacks of what fails")
    options = parser.parse_args()
    wanted = options.families or (SMOKE if options.smoke else FAMILIES)
    results = options.results or (None if options.smoke else Path("families.jsonl"))
    rows: dict[str, dict[str, Any]] = {}
    if results is not None and results.is_file():
        for line in results.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows[row["family"]] = row
    if not options.markdown:
        torch.set_num_threads(1)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        logging.getLogger("panollava").setLevel(logging.CRITICAL)
        with tempfile.TemporaryDirectory() as folder:
            vision_folder(Path(folder))
            for family in wanted:
                if family in rows and not options.families:
                    continue
                started = time.monotonic()
                row = run_apart(lambda family=family: try_family(Path(folder), family), family)  # type: ignore[misc]
                rows[family] = row
                if results is not None:
                    with results.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(row) + "\n")
                print(f"{family}: {row['verdict']} {row['what']} ({time.monotonic() - started:.0f} s)", flush=True)
    found = [rows[family] for family in wanted if family in rows]
    print(markdown(found) if options.markdown else f"{table(found)}\n\n{counts(found)}")
    if any(row["verdict"] == "FAIL" for row in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
