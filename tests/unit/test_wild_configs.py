"""Configurations as people write them: refused in one line with file, line, key, value and what is allowed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from panollava.config import ConfigError, Project, WorkflowConfig
from panollava.config.schema import KEYS
from panollava.models.choices import ResamplerName

FINETUNE = "training: {stage_configs: {finetune: "


def _laughs() -> str:
    """A billion of them in a few lines."""
    lines = ['a: &a ["lol","lol","lol","lol","lol","lol","lol","lol","lol"]']
    lines += [f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines)


def _merges() -> str:
    lines = ["k0: &k0 {x: 1}"] + [f"k{n}: &k{n} {{<<: [*k{n - 1}, *k{n - 1}]}}" for n in range(1, 40)]
    return "\n".join(lines)


# Text (of one line, where no line is given) -> what the message says behind `config/experiments/T.yaml:LINE: `.
BAD: dict[str, str | tuple[int, str]] = {
    # ---- typos ----
    "modles: {vision_name: x}": "modles is not a key. Nearest valid key: models",
    "Models: {vision_name: x}": "Models is not a key. Nearest valid key: models",
    "experiments: {name: A}": "experiments is not a key. Nearest valid key: experiment",
    "experiment: {nam: A}": "experiment.nam is not a key. Nearest valid key: experiment.name",
    "experiment: {Name: A}": "experiment.Name is not a key. Nearest valid key: experiment.name",
    "models: {vision_nmae: x}": "models.vision_nmae is not a key. Nearest valid key: models.vision_name",
    "lora: {lora_rank: 4}": "lora.lora_rank is not a key. Nearest valid key: lora.rank",
    "lora: {enabled: true}": "lora.enabled is not a key. Valid in lora: use_lora, parts, rank, alpha",
    "generation: {top_k: 5}": "generation.top_k is not a key. Nearest valid key: generation.top_p",
    "paths: {runs: x}": "paths.runs is not a key. Nearest valid key: paths.runs_dir",
    "data: {columns: {image: a}}": "data.columns.image is not a key. Nearest valid key: data.columns.image_path",
    "training: {stage_configs: {vison: {epochs: 2}}}": "Nearest valid key: training.stage_configs.vision",
    "training: {stage_configs: {stage1: {epochs: 2}}}": "Valid in training.stage_configs: vision, resampler, finetune",
    "foo: 1": "foo is not a key. Valid: experiment, paths, data, models, image_processing",
    "foo:": "foo is not a key",
    "__class__: x": "__class__ is not a key",
    # ---- keys in another place ----
    "training: {lr: 1e-4}": "training.lr is not a key here. It belongs at: training.stage_configs.vision.lr or",
    "training: {learning_rate: 1}": "not a key here. It belongs at: training.stage_configs.vision.lr or",
    "training: {batch_size: 2}": "training.batch_size is not a key here. It belongs at: training.stage_configs.vision",
    "models: {overlap_ratio: 0.5}": "It belongs at: image_processing.overlap_ratio",
    "latent_dimension: 64": "latent_dimension is not a key here. It belongs at: models.latent_dimension",
    "workflow: {experiments: [A]}": "workflow.experiments belongs in config/default.yaml",
    "training.seed: 5": "dots do not nest here. Write `training:`, and below it, indented, `seed:`",
    "lora.rank: 5": "lora.rank is not a key: dots do not nest here",
    # ---- colons, quotes, look-alikes, what cannot be seen ----
    "training:seed: 5": "A space must follow the colon: `training: …`",
    "training: {seed:5}": "training.seed:5 is not a key. A space must follow the colon: `seed: …`",
    "lora:\n  rank:4": "lora must hold `key: value` lines, got 'rank:4' (text). A space must follow a colon",
    "lora:\n  rank = 4": "lora must hold `key: value` lines, got 'rank = 4' (text)",
    "lora:\n  гank: 4": (3, "(г is U+0433, CYRILLIC SMALL LETTER GHE). Nearest valid key: lora.rank"),
    "lora:\n  ｒａｎｋ: 4": (3, "(ｒ is U+FF52, FULLWIDTH LATIN SMALL LETTER R). Nearest valid key: lora.rank"),
    "lora:\n  rank\u200b: 4": (3, r"lora.rank\u200b is not a key (\u200b is U+200B, ZERO WIDTH SPACE)"),
    "\u00a0lora: {rank: 4}": r"\u00a0lora is not a key (\u00a0 is U+00A0, NO-BREAK SPACE). Nearest valid key: lora",
    "lora: {rank： 4}": "(： is U+FF1A, FULLWIDTH COLON). Nearest valid key: lora.rank",
    "lora: {“rank”: 4}": "(“ is U+201C, LEFT DOUBLE QUOTATION MARK). Nearest valid key: lora.rank",
    "lora: {rank: ”4”}": "lora.rank must be a whole number in [1, 4096], got '”4”' (text)",
    "lora: {rank: ４}": "lora.rank must be a whole number in [1, 4096], got '４' (text)",
    "lora: {rank: ٤}": "lora.rank must be a whole number in [1, 4096], got '٤' (text)",
    '"": 1': "the file holds an empty key",
    # ---- types ----
    "lora: 16": "lora must hold `key: value` lines, got 16",
    "lora: [16]": "lora must hold `key: value` lines, got [16]",
    "training: {stage_configs: [vision]}": "training.stage_configs must hold `key: value` lines, got ['vision']",
    "models: {qformer: 5}": "models.qformer must hold `key: value` lines, got 5",
    "system_messages: hello": "system_messages must hold `key: value` lines, got 'hello' (text)",
    "lora: {rank: '4'}": "must be a whole number in [1, 4096], got '4' (text). Typical range: [4, 64]. Write it",
    "lora: {use_lora: 'false'}": "lora.use_lora must be true or false, got 'false' (text). Write it without quotes",
    FINETUNE + "{lr: '1e-5'}}}": "got '1e-5' (text). Typical range: [1e-6, 1e-3]. Write it without quotes",
    FINETUNE + "{epochs: 3.0}}}": "must be a whole number in [1, 10000], got 3.0. Typical range: [1, 20]. Write 3",
    FINETUNE + "{epochs: 1e1}}}": "must be a whole number in [1, 10000], got 10.0. Typical range: [1, 20]. Write 10",
    FINETUNE + "{epochs: [3]}}}": "epochs must be a whole number in [1, 10000], got [3]",
    FINETUNE + "{epochs: {a: 3}}}}": "epochs must be a whole number in [1, 10000], got a mapping with the keys a",
    FINETUNE + "{epochs: null}}}": "epochs must be a whole number in [1, 10000], got null",
    FINETUNE + "{epochs: 3 epochs}}}": "epochs must be a whole number in [1, 10000], got '3 epochs' (text)",
    FINETUNE + "{epochs: yes}}}": "got true. Typical range: [1, 20]. YAML reads yes as true",
    FINETUNE + "5}}": "training.stage_configs.finetune must hold `key: value` lines, got 5",
    "training: {seed: 1.5}": "training.seed must be a whole number in [0, 4294967295], got 1.5",
    "training: {tensorboard: 1}": "training.tensorboard must be true or false, got 1",
    "training: {devices: [0, 1]}": "training.devices must be a whole number in [1, 1024] or auto, got [0, 1]",
    "training: {devices: '0,1'}": "training.devices must be a whole number in [1, 1024] or auto, got '0,1' (text)",
    "training: {devices: true}": "training.devices must be a whole number in [1, 1024] or auto, got true",
    "training: {wandb_project: 5}": 'training.wandb_project must be text or null, got 5. Put it in quotes: "5"',
    "models: {vision_name: null}": "models.vision_name must be text, got null",
    "data: {csv_train: true}": "data.csv_train must be a path, a list of paths or 'synthetic', got true",
    "data: {csv_train: {a: b}}": "data.csv_train must be a path, a list of paths or 'synthetic', got a mapping",
    "data: {csv_train: [a.csv, 5]}": "data.csv_train must be a path, a list of paths or 'synthetic', got ['a.csv', 5]",
    "evaluation: {metrics: {bleu4: true}}": "evaluation.metrics must be auto or a list of bleu4, meteor",
    "evaluation: {metrics: bleu4}": "got 'bleu4' (text). Write it as a list: [bleu4]",
    "training: {stages: vision}": "resampler, finetune, got 'vision' (text). Write it as a list: [vision]",
    "training: {stages: {vision: 1}}": "training.stages must be a list, each one of vision, resampler, finetune",
    "training: {stages: [[vision]]}": "training.stages must be a list, each one of vision, resampler, finetune",
    "image_processing: {image_size: 224x224}": "image_size must be a whole number or [height, width] in [8, 4096]",
    "image_processing: {image_size: [224, 224, 3]}": "image_size must be a whole number or [height, width]",
    "image_processing: {fov_deg: 90°}": "fov_deg must be a number in (0, 180), got '90°' (text)",
    # ---- ranges and choices ----
    "image_processing: {overlap_ratio: 1.5}": "overlap_ratio must be in (0, 1), got 1.5. Typical range: [0.3, 0.7]",
    "image_processing: {overlap_ratio: 50%}": "overlap_ratio must be a number in (0, 1), got '50%' (text)",
    "image_processing: {fov_deg: -90}": "fov_deg must be in (0, 180), got -90. Typical range: [60, 120]",
    "image_processing: {image_size: 100000}": "image_size must be a whole number or [height, width] in [8, 4096]",
    "image_processing: {stitching_mode: drop-overlap}": "got 'drop-overlap' (text). Did you mean drop_overlap?",
    FINETUNE + "{lr: 0}}}": "lr must be in (0, 1], got 0. Typical range: [1e-6, 1e-3]",
    FINETUNE + "{lr: -1e-5}}}": "lr must be in (0, 1], got -1e-05",
    FINETUNE + "{lr: .inf}}}": "lr must be a finite number, got inf",
    FINETUNE + "{lr: 1e400}}}": "lr must be a finite number, got inf",
    FINETUNE + "{epochs: -3}}}": "epochs must be in [1, 10000], got -3",
    FINETUNE + "{epochs: 99999999999999999999999}}}": "epochs must be in [1, 10000], got 99999999999999999999999",
    "models: {latent_dimension: 1000000000}": "latent_dimension must be in [1, 65536], got 1000000000",
    "models: {resampler_type: MLP}": f"{', '.join(get_args(ResamplerName))}, got 'MLP' (text). Did you mean mlp?",
    "models: {vision_name: miniature/clip}": "must be a hub id, a local folder or 'miniature/siglip'",
    "models: {vision_name: 'https://huggingface.co/google/siglip2-x'}": "got an address. Typical: google/siglip2-x",
    "generation: {temperature: 0}": "temperature must be in [0.1, 1], got 0. Typical range: [0.5, 0.9]",
    "generation: {temperature: 1.01}": "temperature must be in [0.1, 1], got 1.01",
    "lora: {dropout: 1.0}": "dropout must be in [0, 1), got 1.0",
    "training: {strategy: deepspeed_stage_2}": "strategy must be one of auto, ddp, got 'deepspeed_stage_2'",
    "evaluation: {metrics: [BLEU4]}": "got 'BLEU4' (text). Did you mean bleu4?",
    "evaluation: {protocol: per_annotation}": "Did you mean per-annotation?",
    "evaluation: {custom_metrics: ['os:system(1)']}": "must be written package.module:function, got 'os:system(1)'",
    "data: {max_rejected_fraction: 5}": "max_rejected_fraction must be in [0, 1], got 5",
    "data: {csv_train: Synthetic}": "must be a path, a list of paths or 'synthetic', got 'Synthetic' (text)",
    r'data: {csv_train: "a\0b.csv"}': r"visible characters without white space around it, got 'a\x00",
    "data: {csv_train: 'data/{a}.csv'}": "must be a path without braces, which are wildcards to Snakemake",
    "models: {vision_name: '{a}'}": "must be a path without braces",
    "data: {dataset_name: ' x'}": "must be one line of visible characters without white space around it, got ' x'",
    "paths: {runs_dir: ~/runs}": "runs_dir must be a folder's path; ~ and patterns are not expanded, got '~/runs'",
    "paths: {runs_dir: '{experiment}'}": "runs_dir must be a folder's path; ~ and patterns are not expanded",
    "paths: {results_dir: ./}": "results_dir must be a folder below the project's root or elsewhere, got './' (text)",
    "experiment: {name: 'EXP１'}": "'.', '_' and '-', and have at most 100 characters, got 'EXP１'",
    "experiment: {name: ../x}": "experiment.name must start with a letter or digit",
    # ---- settings that do not fit each other ----
    "training: {stages: [finetune, vision]}": "must keep the order vision, resampler, finetune, got [",
    "training: {stages: [vision]}": "must end with resampler or finetune, because prediction uses the last stage",
    "image_processing: {crop_strategy: resize}": "vision stage without a loss: crop_strategy resize gives 1 view",
    "image_processing: {fov_deg: 0.001}": "fov_deg 0.001 and overlap_ratio 0.5 make a ring of more than 1024 views",
    "image_processing: {overlap_ratio: 0.9999999999}": "make a ring of more than 1024 views",
    "training: {devices: 3}": "vision.batch_size must be a multiple of training.devices (3)",
    "models: {resampler_type: qformer, qformer: {heads: 7}}": "a multiple of models.qformer.heads (7), got 768",
    "data: {columns: {query: q, annotation: Q}}": "data.columns maps one column twice",
    "{models: {vision_name: miniature/siglip}, image_processing: {image_size: [50, 64]}}": (
        2,
        "image_size must be a multiple of models.miniature.vision.patch_size (16), got [50, 64]. Nearest: [48, 64]",
    ),
    "models: {miniature: {vision: {image_size: 60}}}": "must be a multiple of patch_size (16), got 60",
    # ---- traps of YAML ----
    "experiment: {name: on}": 'must be text or null, got true. YAML reads on as true: "on" is the word',
    "experiment: {name: NO}": 'must be text or null, got false. YAML reads NO as false: "NO" is the word',
    "experiment: {name: 1e5}": 'must be text or null, got 100000.0. Put it in quotes: "1e5"',
    "experiment: {name: 2024}": 'must be text or null, got 2024. Put it in quotes: "2024"',
    "experiment: {name: 12:30}": "experiment.name must start with a letter or digit, hold only letters",
    "experiment: {name: 007}": "007 has a leading zero, which some programs read as octal. Write 7, or",
    "lora: {rank: 010}": "010 has a leading zero, which some programs read as octal. Write 10",
    "lora: {rank: 0o10}": "lora.rank must be a whole number in [1, 4096], got '0o10' (text)",
    "lora: {rank: 1:30}": "lora.rank must be a whole number in [1, 4096], got '1:30' (text)",
    "lora: {rank: 2024-10-15}": "lora.rank must be a whole number in [1, 4096], got '2024-10-15' (text)",
    "lora:\n  rank: 4,000": (3, "lora.rank must be a whole number in [1, 4096], got '4,000' (text)"),
    "lora:\n  alpha: 8#no": (3, "lora.alpha must be a number above 0, got '8#no' (text)"),
    "lora:\n  rank: 4\n  rank: 5": (4, "lora.rank appears twice (first in line 3). Keep one of them"),
    "lora:\n  rank: 4\nlora:\n  alpha: 5": (4, "lora appears twice (first in line 2). Keep one of them"),
    "lora:\n\trank: 4": (3, "a tab where YAML expects spaces. Replace it by spaces"),
    "lora:\n  rank: 4\n\talpha: 8": (4, "a tab where YAML expects spaces"),
    "lora:\n rank: 4\n  alpha: 8": (4, "not valid YAML: mapping values are not allowed in this context"),
    "lora: rank: 4": "not valid YAML: mapping values are not allowed in this context. The line: 'lora: rank: 4'",
    "lora: {rank: 4": "not valid YAML: did not find expected ',' or '}'",
    "lora:\n  rank: %4": (3, "not valid YAML: found character that cannot start any token"),
    "lora: {rank: 4}\n---\nlora: {rank: 5}": (3, "not valid YAML: but found another document"),
    "lora: {rank: !!int '4'}": "the tag !!int is not allowed",
    "lora: {rank: !mine 4}": "the tag !mine is not allowed",
    "lora: !!python/object/apply:os.system [id]": "the tag !!python/object/apply:os.system is not allowed",
    "lora: *missing": "not valid YAML: found undefined alias",
    "lora: &a {rank: 4, alpha: *a}": "lora.alpha contains itself",
    "lora: {<<: 5}": "`<<` takes a mapping",
    "lora: &x {rank: 0}\nmodels: {<<: *x}": "models.rank is not a key here. It belongs at: lora.rank",
    "? [1, 2]\n: 3": "a key must be a word",
    "lora: {rank: 4}\x07": "not valid YAML: the character U+0007 is not allowed",
    # ---- too much of it ----
    _laughs(): (7, "more than 20000 values, counting what aliases (*name) stand for"),
    _merges(): (2, "more than 20000 values"),
    "a: " + "[" * 100_000: "nested more than 50 levels deep",
    "a: " + "{a: " * 60 + "1" + "}" * 60: "nested more than 50 levels deep",
    "lora: {rank: " + "9" * 5000 + "}": "a number of 5000 characters",
    "experiment: {name: " + "x" * 101 + "}": "at most 100 characters",
    "training: {stages: [" + "vision, " * 1000 + "finetune]}": "must not repeat a stage",
    # ---- keys of the original project ----
    "training: {system_msg: hello}": "a key of the original project that is gone: use system_messages.default",
    "lora: {r: 8}": "lora.r is a key of the original project that is gone: use lora.rank",
    "data: {train: a.csv}": "data.train is a key of the original project that is gone: use data.csv_train",
}  # fmt: skip


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str | bytes], WorkflowConfig]:
    def inner(text: str | bytes) -> WorkflowConfig:
        path = tmp_path / "config/experiments/T.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return WorkflowConfig.load("config/experiments/T.yaml", tmp_path, warn=False)

    return inner


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:50])
def test_refused_in_one_line_with_file_line_and_what_is_allowed(load, text: str) -> None:
    found = BAD[text]
    line, message = (2, found) if isinstance(found, str) else found
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load(f"# a line above\n{text}\n")
    first = str(caught.value).splitlines()[0]
    place, _, said = first.partition(": ")
    if "more than 20000" not in message:  # at which alias the count is full is of no interest
        assert place == f"config/experiments/T.yaml:{line}"
    assert message in said
    assert len(first) < 700 and first.isprintable()
    assert caught.value.exit_code == 2
    assert time.process_time() - started < 5


def test_there_are_as_many_as_promised() -> None:
    assert len(BAD) >= 100


FILES: dict[str, tuple[bytes, str]] = {
    "UTF-16": ("lora: {rank: 4}".encode("utf-16"), "T.yaml: UTF-16 or UTF-32 text. Save it as UTF-8"),
    "UTF-16 without its mark": ("lora: {}".encode("utf-16-le"), "T.yaml:1: not valid YAML: the character U+0000"),
    "western Windows": ("# é\nlora: {}".encode("latin-1"), "T.yaml:1: not UTF-8 text (byte 0xe9). Save it as UTF-8"),
    "Korean Windows": ("lora: {}\n# 한글".encode("cp949"), "T.yaml:2: not UTF-8 text (byte 0xc7)"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "T.yaml:1: not UTF-8 text (byte 0x89)"),
    "an INI file": (b"[lora]\nrank = 4\n", "T.yaml:2: not valid YAML"),
    "a web page": (b"<html></html>", "T.yaml:1: expected `key: value` lines at the top, got '<html></html>'"),
    "a list": (b"- lora\n", "T.yaml:1: expected `key: value` lines at the top, got a list"),
    "a word": (b"lora\n", "T.yaml:1: expected `key: value` lines at the top, got 'lora'"),
    "two MiB": (b"experiment: {description: '" + b"x" * 2**21 + b"'}", "T.yaml: larger than 1 MiB"),
    "many keys": (b"\n".join(b"k%d: 1" % n for n in range(30_000)), "more than 20000 values"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_configuration(load, name: str) -> None:
    content, message = FILES[name]
    with pytest.raises(ConfigError) as caught:
        load(content)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lora: {rank: 4_000}", "lora.rank", 4000),
        ("lora: {rank: +4}", "lora.rank", 4),
        ("lora: {rank: 0x10}", "lora.rank", 16),
        ('lora: {"rank": 4}', "lora.rank", 4),
        ("lora:\r\n  rank: 4\r\n", "lora.rank", 4),
        ("\ufefflora: {rank: 4}", "lora.rank", 4),
        ('{"lora": {"rank": 4}}', "lora.rank", 4),
        ("lora: {rank: 4}\n...", "lora.rank", 4),
        ("lora: {<<: {rank: 4}}", "lora.rank", 4),
        ("training:\nlora: ~\n", "lora.rank", 16),  # a section without content changes nothing
        ("lora: {alpha: 1e1}", "lora.alpha", 10.0),
        (FINETUNE + "{lr: 1e-5}}}", "training.stage_configs.finetune.lr", 1e-5),
        ("image_processing: {cubemap_poles: off}", "image_processing.cubemap_poles", False),
        ("experiment: {name: 2024-10-15}", "experiment.name", "2024-10-15"),
        ("experiment: {name: 'on'}", "experiment.name", "on"),
    ],
)
def test_what_looks_odd_but_is_clear_is_read(load, text: str, key: str, value: object) -> None:
    found = load(text).settings
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    ["{a: {b: 1}}", "[[1]]", "'\\u0000'", "-.inf", "!x 1", "{}", "x\u200by", f"'{'y' * 9999}'", f"[{'z, ' * 999}]"],
    ids=lambda value: value[:8],
)
def test_no_value_of_any_key_makes_a_traceback_or_an_endless_message(load, value: str) -> None:
    for key in KEYS:
        text = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(key.split(".")))[:-1]
        try:
            load(f"{text} {value}\n")
        except ConfigError as error:
            assert str(error).startswith("config/experiments/T.yaml:") and len(str(error)) < 700, key


def test_a_broken_neighbour_hinders_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "config/experiments"
    (folder / "folder.yaml").mkdir(parents=True)
    (folder / "circle.yaml").symlink_to("circle.yaml")
    (folder / "dangling.yaml").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.yaml.txt")  # has another ending: never opened
    (folder / "laughs.yaml").write_text(_laughs())
    (folder / "number.yaml").write_text("experiment: {name: 5}")
    (folder / "good.yaml").write_text("experiment: {name: GOOD}")
    project = Project(tmp_path)
    assert project.experiments() == ["GOOD"] and project.experiment("GOOD").names.experiment == "GOOD"
    with pytest.raises(ConfigError) as caught:
        project.experiment("OTHER")
    for part in ("folder.yaml: cannot be read: Is a directory", "circle.yaml: cannot be read: Too many levels",
                 "dangling.yaml: no such file", "laughs.yaml:", "number.yaml: experiment.name must"):  # fmt: skip
        assert part in str(caught.value)


@pytest.mark.parametrize("path", ["x" * 300 + ".yaml", "a\0.yaml", "nope.yaml", "config", "../../etc/passwd.yaml"])
def test_what_is_no_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "config").mkdir()
    with pytest.raises(ConfigError):
        WorkflowConfig.load(path, tmp_path)
