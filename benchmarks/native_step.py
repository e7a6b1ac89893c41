"""A finetune step of a native vision-language model against TRL's, and its answers against transformers' own.

    python benchmarks/native_step.py                           # a step, the answers; 4 questions a panorama
    python benchmarks/native_step.py --questions 1 2 4 8 16 --plot docs/native_step.svg
    python benchmarks/native_step.py --smoke                   # a minute, as CI runs it

Qwen2.5-VL-shaped, random weights; nine views of noise, the tower frozen, LoRA on the language part. Theirs is
`SFTTrainer.training_step` of TRL 1.16 with its collator, without gradient checkpointing and in float32, and a batched
`generate` with the family's processor; TRL comes from the index into a temporary environment. Ours is a step of
`StageModule` from cached features, and `NativeVLM.generate`. Both are given the same weights, adapters and rows, take
turns in one process, and their losses, gradients and answers are compared in the same run; the exit status is 1 where
they differ. What collates the rows, the backward pass and the optimiser's step are counted on both sides. A panorama's
features are computed once in a training, and once in a prediction: `encoding` says what that takes, and the answers
are given with and without it.

Seconds are CPU seconds of all threads on a CPU and of the clock on a GPU; medians. Memory is what a step adds to what
was there before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import run_with

if __name__ == "__main__":
    run_with("trl", ["trl==1.16.0", "datasets", "pyarrow", "pandas", "dill", "xxhash", "multiprocess",
                     "python-dateutil", "pytz", "tzdata"])  # fmt: skip
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import LoraConfig, get_peft_model
from PIL import Image
from random_models import Noise, draw_rows
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from panollava.data.dataset import CaptionDataset, Collator
from panollava.devices import first_device
from panollava.miniature.vlm import IMAGE, VIDEO, VISION_END, VISION_START, vlm_tokenizer
from panollava.models.config import LoraSettings, ModelConfig
from panollava.models.native import NativeVLM
from panollava.models.processor import PanoramaProcessor
from panollava.models.stages import freeze_for_stage
from panollava.training.features import cached_features
from panollava.training.module import StageModule

LR, MAX_TEXT = 1e-4, 256
LOSS_APART, GRADIENTS_APART = 1e-5, 1e-3
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2.5-VL: keyword arguments of its two configurations, and the side of a view in pixels."""

    text: dict[str, Any]
    vision: dict[str, Any]
    side: int
    sections: tuple[int, int, int]


SHAPES = {
    "small": Shape(
        {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4,
         "num_attention_heads": 8, "num_key_value_heads": 2},
        {"depth": 4, "hidden_size": 320, "intermediate_size": 864, "num_heads": 5, "out_hidden_size": 512,
         "window_size": 112, "fullatt_block_indexes": [3]},
        224, (8, 12, 12),
    ),
    "3b": Shape(
        {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
         "num_attention_heads": 16, "num_key_value_heads": 2},
        {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
         "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
        224, (16, 24, 24),
    ),
    "smoke": Shape(
        {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2},
        {"depth": 2, "hidden_size": 48, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": 64,
         "window_size": 56, "fullatt_block_indexes": [1]},
        56, (2, 3, 3),
    ),
}  # fmt: skip


def write_folder(shape: Shape, folder: Path) -> None:
    """A Qwen2.5-VL folder with random weights: the family's own format."""
    torch.manual_seed(0)
    tokenizer = vlm_tokenizer()
    tokenizer.chat_template = TEMPLATE
    begin, end, image, video = (
        tokenizer.convert_tokens_to_ids(token) for token in (VISION_START, VISION_END, IMAGE, VIDEO)
    )
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(shape.sections)}
    text = {**shape.text, "rope_parameters": rope, "max_position_embeddings": 8192, "tie_word_embeddings": False,
            "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": None}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config={**shape.vision, "patch_size": 14}, image_token_id=image, video_token_id=video,
        vision_start_token_id=begin, vision_end_token_id=end,
    )  # fmt: skip
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    area = {"shortest_edge": shape.side**2, "longest_edge": shape.side**2}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=14, merge_size=2, size=area), tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(), chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip


@dataclass
class Way:
    """One way to do the same: what it takes, `run` once, and what was measured."""

    name: str
    run: Callable[[], Any]
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Bench:
    """One model, twice: ours and theirs, with equal weights and adapters, and rows about panoramas of noise."""

    def __init__(self, shape: Shape, most_questions: int, folder: Path) -> None:
        self.device, self.folder = first_device(), folder
        write_folder(shape, folder / "vlm")
        config = ModelConfig(
            vlm_name="a Qwen2.5-VL with random weights", vlm_path=str(folder / "vlm"),
            image_size=(shape.side, shape.side), max_text_length=MAX_TEXT,
            lora=LoraSettings(rank=16, alpha=32, dropout=0.0),
        )  # fmt: skip
        torch.manual_seed(1)
        self.ours = NativeVLM(config)
        adapters = {name: p for name, p in self.ours.model.named_parameters() if ".lora_" in name}
        with torch.no_grad():
            for name, parameter in adapters.items():
                if "lora_B" in name:  # zeros would hide what the adapters do
                    parameter.normal_(0, 0.02)
        settings = self.ours.model.peft_config["default"]
        theirs = AutoModelForImageTextToText.from_pretrained(folder / "vlm", dtype=torch.float32)
        theirs.requires_grad_(False)
        self.theirs: Any = get_peft_model(
            theirs, LoraConfig(r=settings.r, lora_alpha=settings.lora_alpha, lora_dropout=0.0,
                               target_modules=sorted(settings.target_modules), task_type="CAUSAL_LM"),
        )  # fmt: skip
        own = dict(self.theirs.named_parameters())
        with torch.no_grad():
            for name, parameter in adapters.items():
                own[name].copy_(parameter)
        self.peer = transformers.AutoProcessor.from_pretrained(folder / "vlm")
        freeze_for_stage(self.ours, "finetune", 0)
        self.module = StageModule(
            self.ours, "finetune", kept=set(), total_steps=100, optimizer="adamw", lr=LR, muon_lr=0.02,
            weight_decay=0.0, warmup_ratio=0.0, frozen_features=torch.float32, share_image_prefix=True,
        )  # fmt: skip
        self.processor = PanoramaProcessor.for_model(config, None)
        self.rows = draw_rows(most_questions, 1)
        views: Any = Noise(["0.png"], (len(self.ours.views), shape.side, shape.side, 3))
        self.views = views["0.png"]
        self.pictures = [Image.fromarray(view) for view in self.views]
        started = time.process_time()
        self.store = cached_features(self.ours, self.processor, views, "noise", folder, device=self.device)
        self.encoding_s = time.process_time() - started
        self.ours.to(self.device)
        self.theirs.to(self.device)
        self.collate = Collator(self.processor, self.ours.prompt, MAX_TEXT, True)
        self.trainer, self.their_collate = self._trainer()

    def _trainer(self) -> tuple[Any, Any]:
        import datasets
        from trl import SFTConfig, SFTTrainer
        from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

        collate = DataCollatorForVisionLanguageModeling(self.peer, completion_only_loss=True, max_length=None)
        settings = SFTConfig(
            output_dir=str(self.folder / "trl"), per_device_train_batch_size=1, max_steps=100, report_to=[],
            use_cpu=self.device.type == "cpu", gradient_checkpointing=False, completion_only_loss=True,
            max_length=None, learning_rate=LR, bf16=False, disable_tqdm=True, save_strategy="no",
            dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False,
        )  # fmt: skip
        trainer: Any = SFTTrainer(
            model=self.theirs, args=settings, train_dataset=datasets.Dataset.from_list(self._conversations(1)),
            processing_class=self.peer, data_collator=collate,
        )  # fmt: skip
        trainer.current_gradient_accumulation_steps = 1
        return trainer, collate

    def _conversations(self, questions: int) -> list[dict[str, Any]]:
        return [
            {"images": list(self.pictures), "prompt": [{"role": "user", "content": row.query}],
             "completion": [{"role": "assistant", "content": row.target}]}
            for row in self.rows[:questions]
        ]  # fmt: skip

    # -- S1: a step

    def our_loss(self, questions: int) -> Tensor:
        data = CaptionDataset(self.rows[:questions], self.store)
        batch = {
            key: value.to(self.device) for key, value in self.collate(data.__getitems__(list(range(questions)))).items()
        }
        self.ours.train()
        if "image_index" not in batch:  # one question of one panorama: the cache is read as well
            batch["image_index"] = torch.zeros(1, dtype=torch.long, device=self.device)
        loss = self.module._share(batch, share_image_prefix=True).loss
        loss.backward()
        return loss.detach()

    def their_loss(self, questions: int) -> Tensor:
        batch = self.their_collate(self._conversations(questions))
        loss: Tensor = self.trainer.training_step(self.theirs, batch)
        return loss.detach()

    def steps(self, questions: int, rounds: int) -> tuple[list[Way], float, float]:
        """Both ways to do a step, measured; how far the losses, and the adapters' gradients, are apart."""
        ways, gradients, losses = [], [], []
        for name, model, loss_of in (("TRL", self.theirs, self.their_loss), ("panollava", self.ours, self.our_loss)):
            trainable = [(key, p) for key, p in model.named_parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW([p for _, p in trainable], lr=0.0, weight_decay=0.0)  # weights stay equal
            losses.append(float(loss_of(questions)))
            gradients.append({key.removeprefix("model."): p.grad.clone() for key, p in trainable if p.grad is not None})
            optimizer.zero_grad()

            def step(loss_of: Any = loss_of, optimizer: Any = optimizer) -> None:
                loss_of(questions)
                optimizer.step()
                optimizer.zero_grad()

            ways.append(Way(name, step))
        theirs, ours = ({key.partition("layers.")[2]: value for key, value in one.items()} for one in gradients)
        if theirs.keys() != ours.keys() or not ours:
            raise SystemExit(f"other adapters have gradients: {sorted(theirs.keys() ^ ours.keys())[:4]}")
        apart = max(float((ours[key] - theirs[key]).norm() / theirs[key].norm()) for key in ours)
        self._measure(ways, rounds)
        return ways, abs(losses[0] - losses[1]) / abs(losses[0]), apart

    # -- S2: answers

    def _their_answers(self, questions: int, new: int) -> Tensor:
        texts = [
            self.peer.apply_chat_template(
                [{"role": "user", "content": [*[{"type": "image"}] * len(self.pictures),
                                              {"type": "text", "text": row.query}]}],
                tokenize=False, add_generation_prompt=True,
            )
            for row in self.rows[:questions]
        ]  # fmt: skip
        inputs = self.peer(
            text=texts, images=[self.pictures] * questions, return_tensors="pt", padding=True, padding_side="left"
        ).to(self.device)
        with torch.no_grad():
            whole = self.theirs.generate(
                **inputs, max_new_tokens=new, do_sample=False, eos_token_id=self._end, pad_token_id=0
            )
        found: Tensor = whole[:, inputs["input_ids"].shape[1] :]
        return found

    @property
    def _end(self) -> int:
        return int(self.ours.prompt.end_ids[0])

    def _our_answers(self, questions: int, new: int, encoded: bool) -> Tensor:
        if encoded:
            features = torch.from_numpy(self.store["0.png"])[None].to(self.device)
        else:
            pixels = self.processor.pixels(torch.from_numpy(self.views[None]))
            with torch.no_grad():
                features = self.ours.encode_vision(pixels.to(self.device))
        found: Tensor = self.ours.generate(
            vision_features=features, queries=[row.query for row in self.rows[:questions]],
            image_index=torch.zeros(questions, dtype=torch.long, device=self.device), max_new_tokens=new,
        )["generated_ids"]  # fmt: skip
        return found

    def answers(self, questions: int, rounds: int, new: int) -> tuple[list[Way], bool, int]:
        """Three ways to answer, measured; whether the answers are equal, and how many tokens they have."""
        self.theirs.eval()
        self.ours.eval()
        ways = [
            Way("transformers", lambda: self._their_answers(questions, new)),
            Way("panollava", lambda: self._our_answers(questions, new, True)),
            Way("  with encoding", lambda: self._our_answers(questions, new, False)),
        ]
        found = [way.run() for way in ways]
        equal = all(torch.equal(found[0], other) for other in found[1:])
        self._measure(ways, rounds)
        return ways, equal, int((found[0] != 0).sum())

    # -- measuring

    def _measure(self, ways: list[Way], rounds: int) -> None:
        """Alternately, `rounds` times each; all ways have run once before."""
        for _ in range(rounds):
            for way in ways:
                before = self._begin()
                started = self._clock()
                way.run()
                way.seconds.append(self._clock() - started)
                way.peak_bytes = max(way.peak_bytes, self._peak() - before)

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def _begin(self) -> int:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return int(torch.cuda.memory_allocated())
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")

    def _peak(self) -> int:
        return int(torch.cuda.max_memory_allocated()) if self.device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(text.split(f"{name}:")[1].split()[0])


def table(ways: list[Way], questions: int) -> str:
    lines = [
        f"  {way.name:<16}{1000 * way.median:>9.0f} ms{1000 * way.median / questions:>9.0f} ms a question"
        f"{ways[0].median / way.median:>8.2f} times{way.peak_bytes / 2**20:>9.0f} MiB"
        for way in ways
    ]
    return "\n".join(lines)


def draw(rows: list[tuple[int, list[Way], list[Way]]], path: Path) -> None:
    """Milliseconds a question by the number of questions about one panorama: a step, and an answer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    for axes, which, title in zip(figure.subplots(1, 2), (1, 2), ("a finetune step", "24 new tokens"), strict=True):
        for place, way in enumerate(rows[0][which]):  # type: ignore[arg-type]
            counts = [row[0] for row in rows]
            each = [1000 * row[which][place].median / row[0] for row in rows]  # type: ignore[index]
            axes.plot(counts, each, "o-", label=way.name.strip())
        axes.set(xscale="log", yscale="log", xlabel="questions a panorama", title=title)
        axes.set_xticks(counts, counts)
        axes.minorticks_off()
        axes.legend(fontsize=7)
    figure.get_axes()[0].set_ylabel("ms a question")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=SHAPES, default="small")
    parser.add_argument("--questions", type=int, nargs="+", default=[4], help="about one panorama")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="draw milliseconds a question here")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes, one round: does it still run?")
    given = parser.parse_args()
    if given.smoke:
        given.sizes, given.rounds, given.new_tokens = "smoke", 1, 8
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(given.threads)
    shape, different = SHAPES[given.sizes], []
    rows: list[tuple[int, list[Way], list[Way]]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(shape, max(given.questions), Path(folder))
        import trl

        name = torch.cuda.get_device_name() if bench.device.type == "cuda" else f"CPU, {given.threads} thread(s)"
        print(
            f"{given.sizes}: {len(bench.views)} views of {shape.side} pixels, {bench.ours.num_image_tokens} picture "
            f"tokens; trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, {name}"
        )
        print(f"encoding a panorama, once: {1000 * bench.encoding_s:.0f} ms of CPU")
        for questions in given.questions:
            ways, loss, gradients = bench.steps(questions, given.rounds)
            print(f"a finetune step, {questions} question(s) of one panorama: losses apart by {loss:.1e} of theirs, "
                  f"gradients by {gradients:.1e}")  # fmt: skip
            print(table(ways, questions), flush=True)
            answers, equal, tokens = bench.answers(questions, max(1, given.rounds // 2), given.new_tokens)
            print(f"answers, {tokens / questions:.1f} tokens each: {'equal' if equal else 'OTHER'}")
            print(table(answers, questions), flush=True)
            rows.append((questions, ways, answers))
            different += [questions] if loss > LOSS_APART or gradients > GRADIENTS_APART or not equal else []
    if given.plot is not None:
        draw(rows, given.plot)
    if different:
        sys.exit(f"different results with {different} question(s) a panorama")


if __name__ == "__main__":
    main()
