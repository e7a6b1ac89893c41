"""Reading, merging and validating YAML: numbers, doubled keys, and errors that say what to do instead."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import get_args

import pytest
import yaml

from panollava.config import ConfigError, Settings, WorkflowConfig
from panollava.config.default_file import comment_of, default_yaml
from panollava.config.effective import with_names_of_today
from panollava.config.json_schema import json_schema
from panollava.config.legacy import MOVED, REPLACED
from panollava.config.loading import load_settings
from panollava.config.migration_file import migration_file
from panollava.config.schema import KEYS, Section
from panollava.config.yaml_file import parse_yaml
from panollava.models.choices import ResamplerName

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(tmp_path: Path):
    """Write an experiment's YAML (and a default.yaml, if given) and load it."""

    def inner(text: str, default: str | None = None) -> WorkflowConfig:
        folder = tmp_path / "config" / "experiments"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "T.yaml").write_text(text, encoding="utf-8")
        if default is not None:
            (tmp_path / "config" / "default.yaml").write_text(default, encoding="utf-8")
        return WorkflowConfig.load("config/experiments/T.yaml", tmp_path, warn=False)

    return inner


# ---- YAML ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("5.e-4", 5e-4), (".5", 0.5), ("-2e+3", -2e3), ("3", 3), ("1_000", 1000),
        ("10", 10), ("0x10", 16), ("1.0", 1.0), ("true", True), ("No", False), ("~", None), ("", None),
        ("'1e-5'", "1e-5"), ('"3"', "3"), ("1e", "1e"), ("a1e-5", "a1e-5"), ("2024-10-15", "2024-10-15"),
        ("12:30:00", "12:30:00"), ("[1e-3, x]", [1e-3, "x"]), ("{a: 1e1}", {"a": 10.0}), ("null", None),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object) -> None:
    got = parse_yaml(f"key: {text}\n", "f.yaml").values["key"]
    assert got == value and type(got) is type(value)


def test_lines_of_keys_and_merge_keys() -> None:
    file = parse_yaml("base: &b\n  x: 1\n  y: 2\nover:\n  <<: *b\n  y: 3\n", "f.yaml")
    assert file.values["over"] == {"x": 1, "y": 3}
    assert file.lines["base.y"] == 3 and file.lines["over.y"] == 6
    assert file.where("over.y.deeper") == "f.yaml:6"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a appears twice (first in line 1)"),
        ("a:\n  b: 1\n  b: 1\n", "f.yaml:3: a.b appears twice (first in line 2)"),
        ("a:\n\tb: 1\n", "f.yaml:2: a tab where YAML expects spaces"),
        ("a: [1, 2\nb: 3\n", "f.yaml:2: not valid YAML"),
        ("a: 'x\n", "f.yaml:"),
        ("- 1\n- 2\n", "f.yaml:1: expected `key: value` lines at the top, got a list"),
        ("just words\n", "f.yaml:1: expected `key: value` lines"),
        ("a: !!python/object:os.system x\n", "f.yaml:1: the tag"),
        ("a: !mine x\n", "f.yaml:1: the tag"),
        ("a: &x [*x]\n", "contains itself"),
        ("? [1, 2]\n: 3\n", "a key must be a word"),
    ],
)
def test_broken_yaml_is_one_line_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bom_is_no_part_of_the_first_key_and_other_encodings_are_refused(load, tmp_path: Path) -> None:
    assert load("\ufeffexperiment:\n  name: A\n").names.experiment == "A"
    (tmp_path / "config/experiments/U.yaml").write_bytes("a: é\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"U\.yaml:1: not UTF-8"):
        WorkflowConfig.load("config/experiments/U.yaml", tmp_path)


# ---- errors --------------------------------------------------------------------------------------
CASES = {
    "image_processing: {overlap_ratio: 1.5}": "overlap_ratio must be in (0, 1), got 1.5. Typical range: [0.3, 0.7]",
    "image_processing: {overlap_ratio: 0}": "overlap_ratio must be in (0, 1), got 0",
    "image_processing: {fov_deg: 180}": "fov_deg must be in (0, 180), got 180. Typical range: [60, 120]",
    "image_processing: {fov_deg: .nan}": "fov_deg must be a finite number",
    "image_processing: {crop_strategy: anyres-e2p}": "got 'anyres-e2p' (text). Did you mean anyres_e2p?",
    "image_processing: {image_size: big}": "image_size must be a whole number or [height, width]",
    "image_processing: {image_size: [224]}": "image_size must be a whole number or [height, width]",
    "image_processing: {image_size: 0}": "image_size must be a whole number or [height, width] in [8, 4096]",
    "image_processing: {anyres_max_patches: 0}": "anyres_max_patches must be in [1, 1024], got 0",
    "models: {resampler_type: mpl}": f"{', '.join(get_args(ResamplerName))}, got 'mpl' (text). Did you mean mlp?",
    "models: {vision_name: miniature/clip}": "must be a hub id, a local folder or 'miniature/siglip'",
    "models: {latent_dimension: 12.5}": "latent_dimension must be a whole number in [1, 65536], got 12.5",
    "models: {vision_nmae: x}": "models.vision_nmae is not a key. Nearest valid key: models.vision_name",
    "modles: {vision_name: x}": "modles is not a key. Nearest valid key: models",
    "image_processing: {crop_stratgy: e2p}": "key: image_processing.crop_strategy. Its value: 'e2p' (text)",
    "training: {lr: 1e-4}": "training.lr is not a key here. It belongs at: training.stage_configs.vision.lr",
    "training: {stage_configs: {finetune: {epoch: 3}}}": "Nearest valid key: training.stage_configs.finetune.epochs",
    "training: {stage_configs: {finetune: {lr: fast}}}": "finetune.lr must be a number in (0, 1], got 'fast' (text)",
    "training: {stage_configs: {finetune: {epochs: '3'}}}": "epochs must be a whole number in [1, 10000], got '3'",
    "training: {stage_configs: {finetune: {batch_size: true}}}": "must be a whole number in [1, 65536], got true",
    "training: {stage_configs: {finetune: 5}}": "training.stage_configs.finetune must hold `key: value` lines, got 5",
    "training: [vision]": "training must hold `key: value` lines, got ['vision']",
    "training: {stages: []}": "training.stages must name at least one stage",
    "training: {stages: [finetune, resampler]}": "must keep the order vision, resampler, finetune, got",
    "training: {stages: [resampler, resampler]}": "must not repeat a stage",
    "training: {stages: [vision]}": "must end with resampler or finetune, because prediction uses the last stage",
    "training: {stages: [visoin, finetune]}": "training.stages must be a list, each one of vision, resampler, finetune",
    "training: {stages: vision}": "training.stages must be a list, each one of vision, resampler, finetune",
    "training: {precision: 64}": "training.precision must be one of auto, 32-true, bf16-mixed, 16-mixed, got 64",
    "training: {devices: 0}": "training.devices must be in [1, 1024], got 0",
    "training: {devices: 3}": "vision.batch_size must be a multiple of training.devices (3), because it counts the "
    "rows of all devices, got 32. Write: 33",
    "training: {devices: 2, stage_configs: {finetune: {vicreg_mode: batchwise, overlap_loss_weight: 0.1}}}": "finetune."
    "vicreg_mode must be pairwise with training.devices: 2, got batchwise",
    "training: {devices: 2, stage_configs: {vision: {vicreg_mode: batchwise}}}": "vicreg_mode must be pairwise with "
    "training.devices: 2, got batchwise",
    "training: {cache_vision_features: 1}": "cache_vision_features must be auto or true or false, got 1",
    "image_processing: {crop_strategy: resize}": "training.stages: [resampler, finetune]",
    "image_processing: {crop_strategy: cubemap, cubemap_poles: false}": "the 4 views of crop_strategy cubemap share no",
    "generation: {temperature: 1.5}": "temperature must be in [0.1, 1], got 1.5",
    "generation: {top_p: 0}": "top_p must be in (0, 1], got 0",
    "lora: {dropout: 1}": "dropout must be in [0, 1), got 1",
    "lora: {target_modules: []}": "target_modules must be auto or a list",
    "evaluation: {metrics: [bleu4, blue]}": "auto or a list of bleu4, meteor, rouge_l, spice, cider, got 'blue'",
    "evaluation: {metrics: [cider, cider]}": "evaluation.metrics names a metric twice",
    "evaluation: {custom_metrics: [mine]}": "custom_metrics must be written package.module:function, got 'mine'",
    "evaluation: {protocol: groupd}": "Did you mean grouped?",
    "data: {csv_train: []}": "data.csv_train must be a path, a list of paths or 'synthetic'",
    "data: {csv_train: null}": "data.csv_train must be a path, a list of paths or 'synthetic', got null",
    "data: {csv_train: [synthetic, a.csv]}": "'synthetic' stands alone",
    "data: {columns: {query: q, annotation: ' Q '}}": "data.columns maps one column twice",
    "data: {max_rejected_fraction: 2}": "max_rejected_fraction must be in [0, 1], got 2",
    "experiment: {name: ../x}": "experiment.name must start with a letter or digit",
    "experiment: {name: a/b}": "hold only letters, digits, '.', '_' and '-'",
    "experiment: {name: 'a b'}": "experiment.name must start with a letter or digit",
    "experiment: {name: 2024}": 'experiment.name must be text or null, got 2024. Put it in quotes: "2024"',
    f"experiment: {{name: {'x' * 101}}}": "at most 100 characters",
    "paths: {runs_dir: ''}": "paths.runs_dir must not be empty",
    "workflow: {experiments: [A]}": "workflow.experiments belongs in config/default.yaml",
    "training: {deepspeed: {enabled: false}}": "is a key of the original project that is gone: use training.devices",
    "training: {system_msg: hello}": "use system_messages.default",
    "training: {stage_configs: {vision: {debug_vicreg_loss: true}}}": "the loss's terms are always in the training log",
    "environment: {cuda_visible_devices: '1'}": "CUDA_VISIBLE_DEVICES",
    "models: {resampler_type: qformer, latent_dimension: 100}": "a multiple of models.qformer.heads (8), got 100",
    "models: {qformer: {num_queries: 0}}": "models.qformer.num_queries must be in [1, 4096], got 0",
    "models: {bimamba: {state: 16}}": "Nearest valid key: models.bimamba.state_size",
    "models: {resampler_config: {depth: 2}}": "use models.latent_dimension, and models.qformer, models.perceiver or",
    "training: {stage_configs: {vision: {loss: dense}}}": "one of vicreg, densecl, got 'dense' (text)",
    "training: {stage_configs: {vision: {densecl_temperature: 0}}}": "densecl_temperature must be in (0, 10], got 0",
    "models: {miniature: {vision: {hidden_size: 100}}}": "must be a multiple of twice the heads (4), got 100",
}


@pytest.mark.parametrize(("text", "message"), CASES.items(), ids=list(CASES))
def test_errors_name_file_line_and_what_is_allowed(load, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"# a line above\n{text}\n")
    assert message in str(caught.value)
    assert str(caught.value).startswith("config/experiments/T.yaml:2: ")
    assert caught.value.exit_code == 2


def test_all_errors_of_a_file_are_reported_together_with_their_lines(load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("models:\n  resampler_type: x\nlora:\n  rank: 0\n  rnak: 2\n")
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"config/experiments/T.yaml:{n}" for n in (2, 4, 5)]


def test_an_error_in_default_yaml_names_default_yaml(load) -> None:
    with pytest.raises(ConfigError, match=r"config/default\.yaml:2: lora\.rank must be"):
        load("lora: {alpha: 4}\n", default="lora:\n  rank: none\n")


def test_missing_file_and_missing_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no/such\.yaml: no such file"):
        WorkflowConfig.load("no/such.yaml", tmp_path)
    with pytest.raises(ConfigError, match="there is no experiment EXP7"):
        WorkflowConfig.load("EXP7", tmp_path)


# ---- merging and legacy --------------------------------------------------------------------------
def test_an_experiment_overrides_key_by_key_and_lists_as_a_whole(load) -> None:
    config = load(
        "training:\n  stages: [resampler, finetune]\n  stage_configs: {finetune: {lr: 1e-4}}\ndata:\nlora: ~\n",
        default="training: {seed: 7, stage_configs: {finetune: {lr: 1e-3, epochs: 4}}}\n"
        "data: {csv_train: [a.csv, b.csv]}\n",
    ).settings
    assert config.training.stages == ["resampler", "finetune"]
    assert (config.training.seed, config.training.stage_configs.finetune.lr) == (7, 1e-4)
    assert config.training.stage_configs.finetune.epochs == 4
    assert config.data.csv_train == ["a.csv", "b.csv"] and config.lora == Settings().lora


def test_null_switches_a_value_off(load) -> None:
    config = load("training: {wandb_project: null}\n", default="training: {wandb_project: p}\n")
    assert config.settings.training.wandb_project is None


def test_comments_and_key_order_change_nothing(load) -> None:
    one = load("lora:\n  rank: 4\n  alpha: 8\nexperiment: {name: A}\n").to_dict()
    assert load("# c\nexperiment:\n  name: A\nlora: {alpha: 8, rank: 4} # c\n").to_dict() == one


def test_legacy_prefix_names_the_experiment_with_a_warning(load) -> None:
    config = load("training: {prefix: OLD_1}\n")
    assert config.names.experiment == "OLD_1"
    assert any("training.prefix is deprecated, use experiment.name" in w for w in config.warnings)
    assert load("training: {prefix: OLD}\nexperiment: {name: NEW}\n").names.experiment == "NEW"
    assert load("training: {prefix: OLD}\nexperiment: {name: auto}\n").names.experiment.startswith("siglip_")
    assert load("training: {prefix: OLD}\nexperiment: {auto_name: true}\n").names.experiment.startswith("siglip_")
    with pytest.raises(ConfigError, match=r"T\.yaml:1: experiment\.name must start"):
        load("training: {prefix: a/b}\n")
    with pytest.raises(ConfigError, match=r'must be text or null, got 1234\. Put it in quotes: "1_234"$'):
        load("training: {prefix: 1_234}\n", default="experiment: {name: null}\n")


def test_legacy_csv_keys_are_read_with_a_warning_and_yield_to_todays(load) -> None:
    config = load("paths: {csv_train: old.csv, csv_val: v.csv}\ndata: {csv_val: new.csv}\n")
    assert config.settings.data.csv_train == "old.csv" and config.settings.data.csv_val == "new.csv"
    assert any("T.yaml:1: paths.csv_train is deprecated, use data.csv_train" in w for w in config.warnings)
    assert any("paths.csv_val" in w and "ignored" in w for w in config.warnings)


def test_a_file_of_the_original_project_names_everything_that_changed(load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("experiment: {name: A, version: '1.0'}\ndata: {train: [a.csv]}\ntraining: {empty_cache_each_step: 1}\n")
    assert len(str(caught.value).splitlines()) == 3


# ---- warnings ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {stage_configs: {vision: {vicreg_loss_weight: 0}}}", "the stage would learn nothing"),
        (
            "training: {stages: [finetune], stage_configs: {vision: {vicreg_mode: batchwise}}}\n"
            "image_processing: {crop_strategy: resize}",
            "vicreg_mode has no effect: crop_strategy resize gives 1 view",
        ),
        ("generation: {temperature: 0.5}", "generation.temperature has no effect while generation.do_sample is false"),
        ("training: {stage_configs: {finetune: {muon_lr: 0.1}}}", "muon_lr has no effect"),
        ("models: {bimamba: {layers: 3}}", "models.bimamba.layers has no effect while models.resampler_type is mlp"),
        (
            "training: {stage_configs: {vision: {loss: densecl, vicreg_covariance_weight: 2}}}",
            "vicreg_covariance_weight has no effect while training.stage_configs.vision.loss is densecl",
        ),
        (
            "training: {stage_configs: {vision: {densecl_temperature: 0.1}}}",
            "densecl_temperature has no effect while training.stage_configs.vision.loss is vicreg",
        ),
        ("lora: {rank: 4}", "experiment.name is not set, so the experiment is called panovlm_exp"),
    ],
)
def test_legal_but_pointless_settings_warn(load, text: str, message: str) -> None:
    assert any(message in warning for warning in load(text + "\n").warnings)


def test_a_clean_file_warns_of_nothing_and_load_issues_each_warning_once(load, tmp_path: Path) -> None:
    assert load("experiment: {name: A}\ngeneration: {do_sample: true, temperature: 0.5}\n").warnings == ()
    load("training: {prefix: A}\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WorkflowConfig.load("config/experiments/T.yaml", tmp_path)
    assert len(caught) == 1


# ---- default.yaml --------------------------------------------------------------------------------
def test_default_yaml_holds_the_schemas_defaults() -> None:
    values = load_settings(None, ROOT).settings.model_dump(exclude={"workflow"})
    assert values == Settings().model_dump(exclude={"workflow"})


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("**/*.yaml")), ids=lambda path: path.name)
def test_other_programs_read_the_same_values(path: Path) -> None:
    """PyYAML and YAML 1.1 take `1e-5` for text."""
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text) == parse_yaml(text, path.name).values


def test_default_yaml_shows_every_key_with_its_comment() -> None:
    text = (ROOT / "config/default.yaml").read_text(encoding="utf-8")
    file = parse_yaml(text, "default.yaml")
    assert set(KEYS) <= set(file.lines)
    lines = text.splitlines()
    for key, field in _fields(Settings, ""):
        above: list[str] = []
        number = file.lines[key] - 2
        while lines[number].lstrip().startswith("#"):
            above.insert(0, lines[number].lstrip().removeprefix("#").strip())
            number -= 1
        assert comment_of(field) in " ".join(above), f"{key}: run python -m panollava.config.default_file"


def test_the_generated_file_is_the_one_in_the_repository_but_for_the_experiments() -> None:
    ours = (ROOT / "config/default.yaml").read_text(encoding="utf-8")
    assert ours.partition("  experiments:")[0] == default_yaml().partition("  experiments:")[0]


def test_the_json_schema_for_editors_is_current() -> None:
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    same = (ROOT / "config/schema.json").read_text(encoding="utf-8") == text
    assert same, "a key was added or changed: python -m panollava.config.json_schema > config/schema.json"


def test_the_map_from_the_original_projects_keys_is_current_and_leads_to_keys_that_exist() -> None:
    same = (ROOT / "docs/migration.md").read_text(encoding="utf-8") == migration_file()
    assert same, "legacy.py changed: python -m panollava.config.migration_file > docs/migration.md"
    keys = list(KEYS)
    for text in [*MOVED.values(), *REPLACED.values()]:
        for word in re.findall(r"\b[a-z_]+(?:\.[A-Za-z_]+)+", text):
            key = word.replace("STAGE", "finetune")
            assert any(known == key or known.startswith(f"{key}.") for known in keys), word


def test_exp1_is_the_embedded_default() -> None:
    config = WorkflowConfig.load(ROOT / "config/experiments/EXP1.yaml", ROOT)
    assert config.names.experiment == "EXP1" and config.warnings == ()
    assert config.names.checkpoint_prefix("vision") == "siglip_mlp_anyres-e2p_synthetic"
    assert config.settings.image_processing.crop_strategy == "anyres_e2p"
    assert config.missing_csvs() == []


def _fields(section: type[Section], prefix: str):
    for name, field in section.model_fields.items():
        inner = section.inner.get(name)
        if inner:
            yield from _fields(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


@pytest.mark.parametrize(("old", "new"), [("like_lengths", "group_by_length"), ("by_picture", "group_by_image")])
def test_values_of_earlier_versions_are_read_with_a_warning_and_make_nothing_stale(
    tmp_path: Path, old: str, new: str
) -> None:
    """By the file, and (without a warning) by whatever else sets it; the slice holds what it always held."""
    files = {name: tmp_path / f"{name}.yaml" for name in (old, new)}
    for name, path in files.items():
        path.write_text(f"experiment: {{name: E}}\ntraining:\n  batches: {name}\n", encoding="utf-8")
    loaded = {name: WorkflowConfig.load(path, ROOT, warn=False) for name, path in files.items()}
    told = f"{old}.yaml:3: training.batches: {old} is called {new} now"
    assert any(text.endswith(told) for text in loaded[old].warnings)
    assert not any("is called" in text for text in loaded[new].warnings)
    texts = {config.effective["training"]["batches"] for config in loaded.values()}
    assert {config.settings.training.batches for config in loaded.values()} == {new} and texts == {old}
    assert loaded[new].with_values({"training.batches": old}).settings.training.batches == new
    config = {"training": {"batches": old}}
    with_names_of_today(config)
    assert config == {"training": {"batches": new}}
