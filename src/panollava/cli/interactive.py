"""`models --interactive`: write config/experiments/NAME.yaml or config/ablations/NAME.yaml from a user's answers.

Each answer is checked when it is given, and asked for again if it is invalid. The result is validated by the same code
as any configuration before it is written, completely or not at all, and never over an existing file. Ctrl-C writes
nothing. Answers may come from a file: what ends before the last question writes nothing either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import typer
import yaml

from panollava.cli.tables import print_table
from panollava.config import ConfigError, Project, WorkflowConfig
from panollava.config.ablations import ABLATIONS_FOLDER, read_ablation
from panollava.config.loading import EXPERIMENTS_FOLDER, load_cell
from panollava.config.names import check_name, token
from panollava.config.schema import MINIATURE_LANGUAGE, MINIATURE_VISION, SYNTHETIC
from panollava.files import atomic_path
from panollava.models.choices import ResamplerName
from panollava.views.strategies import CropStrategy, neighbour_pairs, plan_views
from panollava.zoo import GIB, find_model, zoo

Answer = TypeVar("Answer")
_RESAMPLERS: tuple[str, ...] = get_args(ResamplerName)
_CROPS: tuple[str, ...] = get_args(CropStrategy)


def ask_for_configuration() -> None:
    """Ask, write the file, print the command that runs it. Raises ConfigError where there is no project here."""
    root = Path()
    if not (root / "config/default.yaml").is_file():
        raise ConfigError(f"{Path.cwd()} holds no config/default.yaml: run this in the project's root")
    kind = _ask("An experiment, or an ablation (a grid of them)?", "experiment", _one_of("experiment", "ablation"))
    name = _ask("Its name?", None, lambda text: _free_name(text, kind, root))
    print("\nLanguage models")
    _show("language", MINIATURE_LANGUAGE)
    many = kind == "ablation"
    languages = _ask(
        "Language model" + ("s, separated by commas?" if many else "?"), "qwen_0.5b",
        lambda text: _models(text, "language", many),
    )  # fmt: skip
    print("\nVision encoders")
    _show("vision", MINIATURE_VISION)
    (vision,) = _ask("Vision encoder?", "siglip2_base", lambda text: _models(text, "vision", False))
    resampler = _ask(f"Resampler ({', '.join(_RESAMPLERS)})?", "mlp", _one_of(*_RESAMPLERS))
    crop = _ask(f"Crop strategy ({', '.join(_CROPS)})?", "anyres_e2p", _one_of(*_CROPS))
    data = _ask(f"Folder of train.csv, valid.csv or val.csv, test.csv; or {SYNTHETIC}?", "data/quic360", _data)
    ranks = _ask("LoRA rank" + ("s, separated by commas?" if many else "?"), "16", lambda text: _ranks(text, many))
    if many:
        path, command = _write_ablation(root, name, vision, languages, resampler, crop, data, ranks)
    else:
        path, command = _write_experiment(root, name, vision, languages[0], resampler, crop, data, ranks[0])
    print(f"\nwritten: {path}\nnext:    {command}")


def _ask(question: str, default: str | None, check: Callable[[str], Answer]) -> Answer:
    """The first answer that `check` takes; it raises ConfigError for others. Raises it where the answers end."""
    while True:
        try:
            text: str = typer.prompt(question, default=default)
        except typer.Abort:
            if sys.stdin.isatty():  # Ctrl-C
                raise
            raise ConfigError(f"the answers end before the question {question!r}: nothing is written") from None
        try:
            return check(text.strip())
        except ConfigError as error:
            print(f"  {error}")


def _one_of(*choices: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        found = [choice for choice in choices if choice == text] or [one for one in choices if one.startswith(text)]
        if len(found) != 1 or not text:
            raise ConfigError(f"one of {', '.join(choices)}, please")
        return found[0]

    return check


def _free_name(text: str, kind: str, root: Path) -> str:
    check_name(text)
    project, folder = Project(root), EXPERIMENTS_FOLDER if kind == "experiment" else ABLATIONS_FOLDER
    if (root / folder / f"{text}.yaml").exists() or (root / folder / f"{text}.yml").exists():
        raise ConfigError(f"{folder / text}.yaml is there already: choose another name")
    if text in project.experiments():
        raise ConfigError(f"there is an experiment {text} already: choose another name")
    return text


def _models(text: str, kind: str, many: bool) -> list[str]:
    """Model ids of short names, hub ids or folders."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or (len(words) > 1 and not many):
        raise ConfigError("name one model" if not many else "name at least one model")
    if len(set(words)) < len(words):
        raise ConfigError("a model is named twice")
    found = []
    for word in words:
        if "/" in word:
            found.append(word)
            continue
        row = find_model(word)
        if row.kind != kind:
            raise ConfigError(f"{word} is a {row.kind} model")
        found.append(row.id)
    return found


def _data(text: str) -> dict[str, str]:
    if text == SYNTHETIC:
        return dict.fromkeys(("csv_train", "csv_val", "csv_test"), SYNTHETIC)
    folder = Path(text)
    validation = next((name for name in ("valid", "val") if (folder / f"{name}.csv").is_file()), "valid")
    files = {f"csv_{split}": (folder / f"{name}.csv").as_posix()
             for split, name in (("train", "train"), ("val", validation), ("test", "test"))}  # fmt: skip
    missing = [path for path in files.values() if not Path(path).is_file()]
    if missing:
        raise ConfigError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there")
    return files


def _ranks(text: str, many: bool) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdigit() and 1 <= int(word) <= 4096 for word in words):
        raise ConfigError(
            "a whole number from 1 to 4096, please" if not many else "whole numbers from 1 to 4096, please"
        )
    if (len(words) > 1 and not many) or len(set(words)) < len(words):
        raise ConfigError("one number, please" if not many else "a rank is named twice")
    return [int(word) for word in words]


def _show(kind: str, miniature: str) -> None:
    rows = [row for row in zoo() if row.kind == kind]
    cells = [[row.name, row.id, f"{row.parameters / 1e6:,.0f} M", f"{row.memory.training / GIB:.1f}"] for row in rows]
    print_table(["name", "id", "parameters", "training GiB"], [*cells, [miniature, "(built here)", "< 1 M", "0.1"]],
                right=["parameters", "training GiB"])  # fmt: skip


def _common(vision: str, resampler: str, crop: str, data: dict[str, str]) -> dict[str, Any]:
    overlap = bool(neighbour_pairs(plan_views(crop)))
    stages = {} if overlap else {"training": {"stages": ["resampler", "finetune"]}}
    return {
        "data": data,
        "models": {"vision_name": vision, "resampler_type": resampler},
        "image_processing": {"crop_strategy": crop},
        **stages,  # their views share no directions: nothing for the vision stage to learn from
    }


def _write_experiment(
    root: Path, name: str, vision: str, language: str, resampler: str, crop: str, data: dict[str, str], rank: int
) -> tuple[Path, str]:
    document = {"experiment": {"name": name}, **_common(vision, resampler, crop, data)}
    document["models"] = {**document["models"], "language_model_name": language}
    document["lora"] = {"rank": rank, "alpha": 2 * rank}
    path = EXPERIMENTS_FOLDER / f"{name}.yaml"
    _write(root / path, document, lambda file: WorkflowConfig.load(file, root, warn=False))
    return path, f"panollava run {name}"


def _write_ablation(
    root: Path, name: str, vision: str, languages: list[str], resampler: str, crop: str, data: dict[str, str],
    ranks: list[int],
) -> tuple[Path, str]:  # fmt: skip
    common = _common(vision, resampler, crop, data)
    settings = common.pop("models")
    labels = {row.id: row.name for row in zoo()}
    document: dict[str, Any] = {
        "experiment_name": name,
        "models": [
            {"name": labels.get(one, token(one.rstrip("/").rpartition("/")[2])), **settings, "language_model_name": one}
            for one in languages
        ],
        "lora_configs": [{"lora_r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.1} for rank in ranks],
        **common,
    }
    path = ABLATIONS_FOLDER / f"{name}.yaml"
    _write(
        root / path, document, lambda file: [load_cell(cell, None, root) for cell in read_ablation(file, root).cells]
    )
    return path, f"panollava run {name}"


def _write(path: Path, document: dict[str, Any], read: Callable[[Path], object]) -> None:
    """Write what `read` accepts. Raises ConfigError where the file has come to be meanwhile."""
    with atomic_path(path) as partial:
        file = partial.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
        try:
            read(file)
        except ConfigError:
            file.unlink()
            raise
        if path.exists():
            file.unlink()
            raise ConfigError(f"{path} is there already: choose another name")
        file.rename(partial)
