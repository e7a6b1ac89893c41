"""A training step of the finetune stage against the plain loop, with equal batches and equal losses.

    python benchmarks/train_step.py                                # EXP1's sizes
    python benchmarks/train_step.py --sizes large --layers 2       # SigLIP2-so400m and Qwen3-0.6B, two blocks of each
    python benchmarks/train_step.py --sizes large --batch 12 --rows-per-picture 3       # whole, on a GPU
    python benchmarks/train_step.py --batch 16 --rows-per-picture 1 2 4 8 16 --plot questions.png

Random weights. The plain loop runs the frozen encoder in every step, attends with a mask and takes the cross entropy of
all positions' logits; `ours` reads the encoder's features from the cache, attends without a mask and asks for the
logits of supervised positions only. Then, each instead: batches of `like lengths`, batches `by picture`, which read a
picture once for its rows, and gradient checkpointing. All take turns in one process and start from equal weights.

Steps a second are of the clock, CPU seconds of all threads; ratios are of CPU seconds on a CPU and of the clock on a
GPU. Peak memory is what a step adds to what was there before, weights and optimiser included in the latter. FLOPs are
counted by PyTorch; the share of the peak is against a matrix product measured here. With `--layers` the ratio of FLOPs
is also given for all blocks. With several `--rows-per-picture` a table, and a plot, say how time and memory grow with
the questions asked about a picture.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from random_models import SIZES, Noise, Sizes, build_backbones, draw_rows
from torch.utils.flop_counter import FlopCounterMode

from panollava.data.batches import composition, picture_numbers
from panollava.data.dataset import CaptionDataset, Collator
from panollava.data.lengths import row_lengths
from panollava.data.loader import SeededBatches
from panollava.devices import autocast, first_device, language_dtype, resolve_precision
from panollava.models.processor import PanoramaProcessor
from panollava.models.stages import freeze_for_stage
from panollava.models.vlm import PanoramaVLM
from panollava.training.features import cached_features, feature_dtype
from panollava.training.module import StageModule
from panollava.training.optimizers import build_optimizer

Batch = dict[str, Any]
LR, MAX_TEXT = 1e-3, 96


@dataclass
class Way:
    """One way to do a step: its batches, its loss, its optimiser, and what was measured."""

    name: str
    batches: list[Batch]
    loss: Callable[[Batch], torch.Tensor]
    plain: bool = False
    checkpointing: bool = False
    losses: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    flops: int = 0


class Bench:
    """A model whose finetune stage is set, with its rows and pictures, and the ways to train it."""

    def __init__(self, sizes: Sizes, layers: int | None, batch: int, steps: int, about: int, folder: Path) -> None:
        self.sizes, self.layers, self.device = sizes, layers, first_device()
        self.precision = resolve_precision("auto")
        config = build_backbones(folder, sizes, layers)
        torch.manual_seed(1)
        self.model = model = PanoramaVLM(config, dtype=language_dtype(self.precision))
        freeze_for_stage(model, "finetune", 0)
        self.module = StageModule(
            model, "finetune", kept=set(), total_steps=steps, optimizer="adamw", lr=LR, muon_lr=0.02,
            weight_decay=0.0, warmup_ratio=0.0, frozen_features=feature_dtype(self.precision),
        )  # fmt: skip
        self.processor = PanoramaProcessor.for_model(config, model.vision)
        paths = [f"{number}.png" for number in range(max(1, batch * steps // about))]
        self.rows = draw_rows(batch * steps, len(paths))
        self.views: Any = Noise(paths, (len(model.views), *self.processor.image_size, 3))
        self.store = cached_features(
            model, self.processor, self.views, "noise", folder, device=self.device, precision=self.precision,
            images_per_batch=batch,
        )  # fmt: skip
        self.ways = self._ways(batch)
        model.to(self.device).train()
        self.start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def _ways(self, batch: int) -> list[Way]:
        assert self.model.prompt is not None
        pictures, lengths = picture_numbers(self.rows), row_lengths(self.model.prompt, self.rows, MAX_TEXT)
        mixed, alike, group_by_image = (
            SeededBatches(
                len(self.rows), batch, seed=0, shuffle=True, compose=composition(choice, batch, pictures, lengths)
            ).batches()
            for choice in ("mixed", "group_by_length", "group_by_image")
        )
        print(
            f"{self.sizes.name}: {self._blocks()}; {self.model.num_image_tokens} picture tokens, batch {batch}, "
            f"{len(self.rows) / len(self.views):.1f} rows a picture, {self.precision}, {_device_name(self.device)}"
        )
        cached = self._batches(mixed, True)
        return [
            Way("plain", self._batches(mixed, False), self._plain, plain=True),
            Way("ours", cached, self._ours),
            Way("  like lengths", self._batches(alike, True), self._ours),
            Way("  by picture", self._batches(group_by_image, True), self._reading_once),
            Way("  checkpointed", cached, self._ours, checkpointing=True),
        ]

    def _blocks(self) -> str:
        whole = [part["num_hidden_layers"] for part in (self.sizes.vision, self.sizes.language)]
        kept = whole if self.layers is None else [self.layers] * 2
        return f"{kept[0]} of {whole[0]} vision and {kept[1]} of {whole[1]} language blocks, random weights"

    def _batches(self, order: list[list[int]], cached: bool) -> list[Batch]:
        data = CaptionDataset(self.rows, self.store if cached else self.views)
        collate = Collator(self.processor, self.model.prompt, MAX_TEXT, cached)
        return [collate([data[row] for row in rows]) for rows in order]

    def _ours(self, batch: Batch) -> torch.Tensor:
        return self.module._share(batch, share_image_prefix=False).loss

    def _reading_once(self, batch: Batch) -> torch.Tensor:
        return self.module._share(batch, share_image_prefix=True).loss

    def _plain(self, batch: Batch) -> torch.Tensor:
        """Encoder, all logits, cross entropy over all positions with the labels shifted: as a first version would."""
        model = self.model
        assert model.language is not None
        pixels = batch["pixel_values"]
        if "image_index" in batch:
            pixels = pixels[batch["image_index"]]
        tokens = model.encode_panorama(model.encode_vision(pixels))
        embeds = model._splice(tokens, batch["input_ids"], batch["image_token_mask"])
        logits = model.language(embeds, batch["attention_mask"])  # [B, L, vocab]
        targets = F.pad(batch["labels"], (0, 1), value=-100)[:, 1:]
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)

    def train(self, way: Way) -> None:
        """All batches of `way` once, from the first weights; the first step is counted and warms up."""
        self._restart()
        trainable = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if way.plain:
            optimizer = torch.optim.AdamW([p for _, p in trainable], lr=LR, betas=(0.9, 0.98), weight_decay=0.0)
        else:
            optimizer = build_optimizer(trainable, lr=LR, weight_decay=0.0)
        if way.checkpointing:
            self.model.enable_gradient_checkpointing()
        for number, batch in enumerate(way.batches):
            if number:
                before = self._begin()
                cpu, wall = time.process_time(), time.perf_counter()
                way.losses.append(self._step(way, batch, optimizer))
                way.cpu_s.append(time.process_time() - cpu)
                way.wall_s.append(time.perf_counter() - wall)
                way.peak_bytes = max(way.peak_bytes, self._peak() - before)
            else:
                with FlopCounterMode(display=False) as counter:
                    way.losses.append(self._step(way, batch, optimizer))
                way.flops = counter.get_total_flops()
        if way.checkpointing:
            for part in (self.model.vision, self.model.language):
                part.model.gradient_checkpointing_disable()  # type: ignore[union-attr]
        for _, parameter in trainable:
            parameter.grad = None

    @torch.no_grad()
    def _restart(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self.start:
                parameter.copy_(self.start[name])

    def _step(self, way: Way, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
        moved = {key: value.to(self.device) for key, value in batch.items()}
        with autocast(self.precision, self.device):
            loss = way.loss(moved)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())  # waits for a GPU

    def _begin(self) -> int:
        """Bytes in use now, from where the peak is counted."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is freed but kept would hide what a step takes
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        with suppress(OSError):  # resets the peak; where that is not allowed the peak is the process' own
            Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else _status("VmHWM")

    @torch.no_grad()
    def first_loss_read_apart(self, way: Way) -> float:
        """The first loss of `way`, with a picture of its own for every row."""
        self._restart()
        moved = {key: value.to(self.device) for key, value in way.batches[0].items()}
        with autocast(self.precision, self.device):
            return float(self._ours(moved))

    def flops_of_all_blocks(self, way: Way) -> float:
        """The FLOPs of a step with all blocks: the encoder's and the language model's grow with their number."""
        assert self.layers is not None and self.model.language is not None
        encoder = 0
        if "pixel_values" in way.batches[0]:
            pixels = way.batches[0]["pixel_values"].to(self.device)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                self.model.encode_vision(pixels)
            encoder = counter.get_total_flops() * len(way.batches[0]["labels"]) // len(pixels)
        batch = way.batches[0]
        full = way.plain
        heads = batch["labels"].numel() if full else int((batch["labels"] != -100).any(0).sum()) * len(batch["labels"])
        head = 2 * 2 * heads * self.model.language.hidden_size * self.sizes.language["vocab_size"]
        blocks = way.flops - encoder - head
        vision, language = (
            part["num_hidden_layers"] / self.layers for part in (self.sizes.vision, self.sizes.language)
        )
        return encoder * vision + blocks * language + head


def measured_peak(device: torch.device, precision: str) -> float:
    """FLOPs a second of a large matrix product in the training's arithmetic."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(text.split(f"{name}:")[1].split()[0])


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def report(bench: Bench, peak: float) -> None:
    plain = bench.ways[0]
    gpu = bench.device.type == "cuda"
    cost = {way.name: statistics.median(way.wall_s if gpu else way.cpu_s) for way in bench.ways}
    print(f"measured peak of a matrix product: {peak / 1e12:.2f} TFLOP/s")
    print(f"{'':16}{'steps/s':>9}{'CPU s':>8}{'times':>7}{'peak GiB':>10}{'TFLOP':>8}{'of peak':>9}{'loss':>10}")
    for way in bench.ways:
        wall = statistics.median(way.wall_s)
        print(
            f"{way.name:16}{1 / wall:>9.3f}{statistics.median(way.cpu_s):>8.2f}{cost['plain'] / cost[way.name]:>7.2f}"
            f"{way.peak_bytes / 2**30:>10.2f}{way.flops / 1e12:>8.3f}{way.flops / wall / peak:>9.1%}"
            f"{statistics.mean(way.losses):>10.5f}"
        )
    for way in bench.ways[1:]:
        if way.name == "  by picture":
            apart = abs(way.losses[0] - bench.first_loss_read_apart(way)) / way.losses[0]
            print(f"by picture: first loss apart from that of each row's own picture by {apart:.1e}")
        if way.batches is bench.ways[1].batches:
            first = abs(way.losses[0] - plain.losses[0]) / plain.losses[0]
            worst = max(abs(a - b) / b for a, b in zip(way.losses, plain.losses, strict=True))
            print(f"{way.name.strip()}: losses apart from plain's by {first:.1e} at first, {worst:.1e} at most")
    if bench.layers is not None:
        totals = {way.name.strip(): bench.flops_of_all_blocks(way) for way in (plain, bench.ways[1], bench.ways[3])}
        shown = (f"{name} {total / 1e12:.1f} ({totals['plain'] / total:.2f} times)" for name, total in totals.items())
        print(f"TFLOP a step with all blocks: {', '.join(shown)}")


def growth(rows: dict[int, dict[str, Way]], plot: Path | None) -> None:
    """How the ratios of time and memory grow with the rows about a picture: a table, and a plot in `plot`."""
    names = ("ours", "by picture")
    ratios: dict[str, dict[str, list[float]]] = {}
    for title, cost in (("CPU seconds", "cpu_s"), ("peak memory", "peak_bytes")):
        for name in names:
            ratios.setdefault(title, {})[name] = [
                _cost(ways["plain"], cost) / max(1e-9, _cost(ways[name], cost)) for ways in rows.values()
            ]
    print(f"{'questions a picture':<28}" + "".join(f"{about:>7}" for about in rows))
    for title, by_name in ratios.items():
        for name, found in by_name.items():
            print(f"{f'{title}, plain / {name}':<28}" + "".join(f"{one:>7.2f}" for one in found))
    if plot is None:
        return
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, (title, by_name) in zip(axes, ratios.items(), strict=True):
        for name, found in by_name.items():
            axis.plot(list(rows), found, marker="o", label=name)
        axis.set(xscale="log", xticks=list(rows), xticklabels=list(rows), xlabel="questions about a panorama")
        axis.set(title=f"{title}: plain loop / this", ylim=(0, None))
        axis.minorticks_off()
        axis.legend()
    figure.savefig(plot, dpi=110)


def _cost(way: Way, name: str) -> float:
    found = getattr(way, name)
    return statistics.median(found) if isinstance(found, list) else float(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=SIZES, default="exp1")
    parser.add_argument("--layers", type=int, help="keep so many blocks of each backbone; default: all")
    parser.add_argument("--batch", type=int, help="rows in a batch; default: EXP1's 24, or 2 for large")
    parser.add_argument("--rows-per-picture", type=int, nargs="+", help="default: EXP1's 3, or 2 for large")
    parser.add_argument("--plot", type=Path, help="a picture of the ratios, where several numbers of rows are given")
    parser.add_argument("--smoke", action="store_true", help="one block of each, two rows, two steps")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(given.threads)
    sizes = SIZES[given.sizes]
    if given.smoke:
        given.layers, given.batch, given.rows_per_picture, given.steps = 1, 2, [2], 3
    rows: dict[int, dict[str, Way]] = {}
    for about in given.rows_per_picture or [sizes.rows_per_picture]:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(sizes, given.layers, given.batch or sizes.batch_size, given.steps, about, Path(folder))
            for way in bench.ways:
                bench.train(way)
            report(bench, measured_peak(bench.device, bench.precision))
            rows[about] = {way.name.strip(): way for way in bench.ways}
    if len(rows) > 1:
        growth(rows, given.plot)


if __name__ == "__main__":
    main()
