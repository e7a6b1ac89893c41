"""A native model through the DAG's own jobs, in this process: as it comes, and with adapters, connector and tower."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_vlms import vlm_folder
from typer.testing import CliRunner

from panollava.api import EvaluationRunner, ThreeStageTrainer
from panollava.checkpoints.any_folder import open_stage
from panollava.checkpoints.chosen import load_chosen_stage
from panollava.checkpoints.export import export_stage
from panollava.checkpoints.loading import load_stage
from panollava.checkpoints.weights import load_weights
from panollava.cli.main import app
from panollava.config import ConfigError, WorkflowConfig
from panollava.dag.local import Pipeline
from panollava.errors import CheckpointError
from panollava.evaluation.verify import verify
from panollava.models.build import load_pretrained
from panollava.models.native import NativeVLM
from panollava.serve.answering import Answering

pytest.importorskip("torchvision", reason="native models need the extra `native`")

ROOT = Path(__file__).parents[2]
BASE: dict[str, Any] = {
    "data": {"csv_train": "data/train.csv", "csv_val": "data/train.csv", "csv_test": "data/train.csv"},
    "models": {"vlm_name": "weights/tiny-vlm"},
    "image_processing": {"crop_strategy": "e2p"},
    "lora": {"rank": 2, "dropout": 0.0},
    "training": {
        "cpu_threads": 1,
        "stage_configs": {
            stage: {"epochs": 1, "batch_size": 4, "lr": 0.01} for stage in ("vision", "resampler", "finetune")
        },
    },
    "generation": {"max_new_tokens": 4},
    "evaluation": {"metrics": ["bleu4"], "bootstrap_samples": 0},
    "system_messages": {"default": ""},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with two drawn panoramas, four questions and a tiny model of another's making."""
    folder = tmp_path_factory.mktemp("native")
    for name in ("config", "data", "weights"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "config/default.yaml", folder / "config/default.yaml")
    (folder / "config/experiments").mkdir()
    shutil.copy(ROOT / "Snakefile", folder)
    rng = np.random.default_rng(0)
    for name in "ab":
        pixels = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(folder / f"data/{name}.png")
    rows = ["image_path,query,annotation", "a.png,what is behind me?,a red box", "a.png,describe it,the sky is blue",
            "b.png,what is behind me?,nothing", "b.png,where is the box?,to your left"]  # fmt: skip
    (folder / "data/train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    vlm_folder(folder / "weights", "qwen2_5_vl").rename(folder / "weights/tiny-vlm")
    yield folder


def experiment(root: Path, name: str, **changes: Any) -> WorkflowConfig:
    document = json.loads(json.dumps(BASE))
    document["experiment"] = {"name": name}
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        node = document
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    path = root / f"config/experiments/{name}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return WorkflowConfig.load(path, root)


def answers(root: Path, cfg: WorkflowConfig, node: str = "predict") -> str:
    with chdir(root):
        Pipeline(cfg).make(node)
    return (root / cfg.names.predictions).read_text(encoding="utf-8")


def test_zero_shot_goes_from_the_csv_to_metrics_without_a_stage(root: Path) -> None:
    cfg = experiment(root, "zero", training__stages=[])
    assert cfg.names.as_json()["stages"] == {}
    answers(root, cfg, "metrics")
    with chdir(root):
        Pipeline(cfg).make("stage_state")
    assert json.loads((root / cfg.names.stage_state).read_text())["stages"] == {}
    chosen = json.loads((root / cfg.names.checkpoint_json).read_text())
    assert chosen["stage"] is None and chosen["file"] is None and len(chosen["sha256"]) == 64
    metrics = json.loads((root / cfg.names.metrics).read_text())
    assert metrics["provenance"]["checkpoint"]["sha256"] == chosen["sha256"]
    assert metrics["controls"]["blind"]["bleu4"] is not None
    with chdir(root):
        checks = verify(Path(cfg.names.metrics))
    assert {"BLEU-4", "predictions.csv"} <= {one.what for one in checks if one.state == "holds"}, checks
    assert not any(one.state == "differs" for one in checks), checks
    assert not list((root / "runs").glob("zero/*/*_native"))


def test_zero_shot_needs_a_test_set_alone(root: Path) -> None:
    alone = experiment(root, "zero-test-alone", training__stages=[], data__csv_train=None, data__csv_val=None)
    assert alone.splits == ("test",) and alone.names.datasets["finetune"] == Path(alone.csvs("test")[0]).stem
    answers(root, alone, "metrics")
    with chdir(root):
        Pipeline(alone).make("prepare_experiment")
        prepared = Path(alone.names.metrics).parent / "prepared"
        assert [(prepared / f"{split}.csv").read_text() for split in ("train", "val")] == [
            "image_path,query,annotation\n"
        ] * 2
        assert len((prepared / "test.csv").read_text().splitlines()) == 5
    with pytest.raises(ConfigError, match=r"csv_train must be a path.*alone needs none"):
        experiment(root, "trained-on-nothing", data__csv_train=None)
    (root / "config/experiments/trained-on-nothing.yaml").unlink()
    with pytest.raises(ConfigError, match=r"csv_test must be a path.*no data.csv_val to test instead"):
        experiment(root, "nothing", training__stages=[], data__csv_val=None, data__csv_test=None)
    (root / "config/experiments/nothing.yaml").unlink()
    gone = experiment(root, "zero-gone", training__stages=[], data__csv_train="data/gone.csv")
    with pytest.raises(ConfigError, match=r"data.csv_train \(null where nothing is trained\): data/gone.csv does not"):
        gone.digest("metrics")
        gone.digest("prepare_train")
    (root / "config/experiments/zero-gone.yaml").unlink()


def test_other_weights_of_a_zero_shot_model_are_refused_and_another_model_is_stale(root: Path, tmp_path: Path) -> None:
    cfg = experiment(root, "zero-again", training__stages=[])
    answers(root, cfg)
    before = cfg.digest("select_checkpoint")
    other = vlm_folder(tmp_path, "qwen2_5_vl", seed=5)
    weights = root / "weights/tiny-vlm/model.safetensors"
    kept = weights.read_bytes()
    try:
        shutil.copy(other / "model.safetensors", weights)
        from panollava.checkpoints.zero_shot import load_zero_shot

        with chdir(root), pytest.raises(CheckpointError, match="is not what checkpoint"):
            load_zero_shot(json.loads((root / cfg.names.checkpoint_json).read_text()))
        assert WorkflowConfig.load(cfg.source or "", root).digest("select_checkpoint") != before
    finally:
        weights.write_bytes(kept)


def test_code_of_a_model_as_it_comes_runs_only_where_the_experiment_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """checkpoint.json may come from anybody: alone it switches on no code of the model's own."""
    cfg = experiment(root, "closed", training__stages=[])
    with chdir(root):
        Pipeline(cfg).make("select_checkpoint")
        chosen = json.loads((root / cfg.names.checkpoint_json).read_text())
        chosen["model_config"]["trust_remote_code"] = True
        told = []

        def build(config: Any, **_: Any) -> None:
            told.append(config.trust_remote_code)
            raise CheckpointError("enough")

        monkeypatch.setattr("panollava.checkpoints.zero_shot.build_model", build)
        for allowed in (False, True):
            experiment(root, "closed", training__stages=[], models__trust_remote_code=allowed)
            with pytest.raises(CheckpointError, match="enough"):
                load_chosen_stage(chosen)
    assert told == [False, True]


def test_commands_ask_a_model_as_it_comes_by_its_experiment_alone(root: Path) -> None:
    """`infer`, `eval` and the page answer as the DAG does, before and without any run of it."""
    cfg = experiment(root, "asked", training__stages=[], evaluation__extra=["perplexity"])
    runner = CliRunner()
    with chdir(root):
        found = runner.invoke(app, ["infer", "data/a.png", "--query", "describe it", "--config", "asked", "--json"])
        assert found.exit_code == 0, found.output
        answer = json.loads(found.stdout)
        assert (answer["experiment"], answer["stage"], answer["num_views"]) == ("asked", None, 8)
        scored = runner.invoke(app, ["eval", "--config", "asked"])
        assert scored.exit_code == 0, scored.output
        loaded = open_stage(None, cfg)
        page = Answering(loaded, torch.device("cpu"))
        assert page.answer(page.open("data/a.png").views, "describe it", 4).text == answer["text"]
        document = json.loads(Path("results/asked/eval/train/metrics.json").read_text())
        refused = [
            runner.invoke(app, words)
            for words in (["eval", "--config", "asked", "--epoch", "1"], ["train", "--config", "asked"])
        ]
    assert all("trains no stage" in str(one.exception) for one in refused), refused
    by_the_dag = answers(root, cfg).splitlines()
    assert (root / "results/asked/eval/train/predictions.csv").read_text().splitlines() == by_the_dag
    assert answer["text"] in "".join(by_the_dag)
    chosen = json.loads((root / cfg.names.checkpoint_json).read_text())
    assert document["provenance"]["checkpoint"]["sha256"] == chosen["sha256"]
    answers(root, cfg, "metrics")
    with chdir(root):
        Pipeline(cfg).make("stage_state")
        assert "no stages: the model answers as it comes" in runner.invoke(app, ["status", "asked"]).stdout
    by_the_dag_scored = json.loads((root / cfg.names.metrics).read_text())
    assert document["metrics"]["perplexity"] == by_the_dag_scored["metrics"]["perplexity"]
    assert ThreeStageTrainer(cfg).run() == root / cfg.names.checkpoint_json
    assert EvaluationRunner(cfg).run(max_samples=1)["bleu4"]["value"] is not None


def test_a_model_that_the_dag_has_not_built_yet_cannot_be_asked(root: Path) -> None:
    cfg = experiment(root, "unbuilt", training__stages=[], models__vlm_name="miniature/vlm",
                     image_processing__image_size=64)  # fmt: skip
    with chdir(root), pytest.raises(CheckpointError, match="panollava run unbuilt builds it"):
        open_stage(None, cfg)


@pytest.fixture(scope="module")
def trained(root: Path) -> WorkflowConfig:
    """All three stages; finetune with adapters in language and tower, panorope and the overlap loss beside."""
    cfg = experiment(
        root, "three", training__stages=["vision", "resampler", "finetune"], lora__parts=["language", "vision"],
        models__panorama_positions="panorope", training__stage_configs__finetune__overlap_loss_weight=0.1,
        training__stage_configs__finetune__overlap_features="tower",
        image_processing__view_labels=True,
    )  # fmt: skip
    answers(root, cfg)
    return cfg


def test_an_experiments_settings_of_generation_stand_before_those_that_its_folder_remembers(
    root: Path, trained: WorkflowConfig
) -> None:
    other = experiment(root, "shorter", training__stages=["finetune"], generation__max_new_tokens=2)
    asked = ["infer", "data/a.png", "--query", "describe it", "--checkpoint-dir", trained.names.stage_dir("finetune")]
    with chdir(root):
        found = [
            json.loads(CliRunner().invoke(app, [*asked, *more, "--json"]).stdout)["generation"]["max_new_tokens"]
            for more in ([], ["--config", "shorter"], ["--config", "shorter", "--max-new-tokens", "3"])
        ]
    assert found == [4, 2, 3] and other.settings.generation.max_new_tokens == 2


def by_part(root: Path, cfg: WorkflowConfig, stage: str) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of a stage's best checkpoint, by part."""
    folder = root / cfg.names.stage_dir(stage)
    model = load_stage(folder, root=root).model
    assert isinstance(model, NativeVLM)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_weights(folder / "best.ckpt")[1].items():
        found.setdefault(model.part_of(key), {})[key] = tensor
    return found


def test_each_stage_trains_and_keeps_what_it_says(root: Path, trained: WorkflowConfig) -> None:
    assert trained.names.variant == "e2p_native" and trained.names.vision == "tiny-vlm"
    vision, resampler, finetune = (by_part(root, trained, stage) for stage in ("vision", "resampler", "finetune"))
    assert vision.keys() == {"vision_lora", "vicreg_projector"}
    assert resampler.keys() == {"vision_lora", "connector"}
    assert finetune.keys() == {"vision_lora", "connector", "lora"}

    def moved(tensors: dict[str, torch.Tensor]) -> bool:
        """Whether every adapter has left the zero at which it begins."""
        return all(bool(tensor.any()) for key, tensor in tensors.items() if "lora_B" in key)

    assert moved(vision["vision_lora"]) and moved(finetune["lora"])
    assert all(torch.equal(vision["vision_lora"][key], kept) for key, kept in resampler["vision_lora"].items())
    assert not any(torch.equal(vision["vision_lora"][key], now) for key, now in finetune["vision_lora"].items())
    assert all(torch.equal(resampler["connector"][key], kept) for key, kept in finetune["connector"].items())


def test_the_overlap_loss_is_logged_apart(root: Path, trained: WorkflowConfig) -> None:
    rows = (root / trained.names.stage_dir("finetune") / "loss_curves.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows if "overlap" in row] == ["train_overlap"]
    assert all(float(row.split(",")[3]) > 0 for row in rows if "overlap" in row)


def test_a_stage_folder_answers_as_the_dag_did_exported_and_merged(
    root: Path, trained: WorkflowConfig, tmp_path: Path
) -> None:
    loaded = load_stage(root / trained.names.stage_dir("finetune"), root=root)
    question, picture = "what is behind me?", root / "data/a.png"
    pixels = loaded.processor.pixels(loaded.processor.open(picture))[None]
    wanted = loaded.model.generate(pixels, [question], max_new_tokens=4)["text"][0]
    assert f"{question},{wanted}" in (root / trained.names.predictions).read_text() or wanted in (
        (root / trained.names.predictions).read_text()
    )
    for merge in (False, True):
        folder = tmp_path / f"exported-{merge}"
        export_stage(root / trained.names.stage_dir("finetune"), folder, merge_lora=merge)
        again, processor = load_pretrained(folder)
        assert again.has_adapters is not merge
        assert again.generate(processor.pixels(processor.open(picture))[None], [question], max_new_tokens=4)[
            "text"
        ] == [wanted]
    from transformers import AutoModelForImageTextToText

    AutoModelForImageTextToText.from_pretrained(tmp_path / "exported-True")


def test_adapters_of_others_are_evaluated_as_they_are(root: Path, trained: WorkflowConfig) -> None:
    """lora_weights/ of a stage is an ordinary peft folder; on the bare model it changes the answers' losses."""
    cfg = experiment(root, "tuned", lora__parts=["language"])
    answers(root, cfg)
    shutil.copytree(
        root / cfg.names.stage_dir("finetune") / "lora_weights", root / "weights/adapter", dirs_exist_ok=True
    )
    other = experiment(root, "adapted", training__stages=[], models__adapter="weights/adapter")
    assert answers(root, other).splitlines() == (root / cfg.names.predictions).read_text().splitlines()
    chosen = json.loads((root / other.names.checkpoint_json).read_text())
    assert set(chosen["weights"]) == {"vlm", "adapter"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models__vision_name": "google/siglip-base-patch16-224"}, "replaces the composed.*vision_name"),
        ({"models__latent_dimension": 64}, "beside models.latent_dimension"),
        ({"training__stage_configs__finetune__overlap_loss_weight": 0.1}, "reaches nothing that trains before"),
        (
            {"training__stage_configs__finetune__overlap_loss_weight": 0.1, "lora__parts": ["vision"],
             "image_processing__crop_strategy": "resize"},
            "has nothing to compare",
        ),
        ({"training__full_finetune": True, "models__quantization": "4bit"}, "quantised weights do not train"),
        ({"models__vlm_name": "miniature/siglip"}, "'miniature/vlm'"),
        ({"training__stages": ["vision"]}, "must end with resampler or finetune"),
    ],
)  # fmt: skip
def test_what_cannot_stand_together_is_refused(root: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(root, "wrong", **changes)
    (root / "config/experiments/wrong.yaml").unlink()


def test_stages_are_finetune_alone_unless_named(root: Path) -> None:
    cfg = experiment(root, "plain")
    assert cfg.settings.training.stages == ["finetune"]
    again = WorkflowConfig.from_dict(cfg.to_dict(), root)
    assert again.to_dict() == cfg.to_dict() and again.digest("train_finetune") == cfg.digest("train_finetune")
    (root / "config/experiments/plain.yaml").unlink()
