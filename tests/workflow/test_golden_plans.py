"""Change by change, exactly the jobs that are stale: dry runs of the real DAG against golden_plans.yaml.

All keys are planned in one dry run, each in a finished twin of SMALL; some once more by a command of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from conftest import SMALL, Project, with_changes
from plans import add_twin, counts, jobs_of, plan, planned_jobs, targets

from panollava.config import ConfigError, WorkflowConfig
from panollava.config.schema import KEYS as SETTINGS
from panollava.config.schema import Settings
from panollava.dag.nodes import NODES, RULES, TABLE, earliest_node

pytestmark = pytest.mark.workflow

GOLDEN = yaml.safe_load(Path(__file__).with_name("golden_plans.yaml").read_text(encoding="utf-8"))
KEYS: dict[str, dict[str, Any]] = GOLDEN["keys"]
VERSIONED = [name for name, node in TABLE.items() if node.document is None]
# Planned once more by the plain command, as a check on the dry run that plans them all together.
SINGLY = [
    "data.synthetic.seed", "training.stage_configs.vision.lr", "training.stage_configs.finetune.lr",
    "generation.max_new_tokens",
]  # fmt: skip


@pytest.fixture
def twins(project: Project) -> Project:
    """A copy of the finished project with a small CSV that changes can name."""
    (project.root / "own.csv").write_text("url,query,annotation\nhttp://nowhere/a.jpg,q,a\n", encoding="utf-8")
    return project


def in_own_file(key: str) -> bool:
    return "file" not in KEYS[key] and "name" not in KEYS[key]


def test_the_golden_file_names_every_setting_and_no_other() -> None:
    assert sorted(KEYS) == sorted(SETTINGS)
    assert list(GOLDEN["code_versions"]) == VERSIONED


@pytest.mark.parametrize("key", KEYS)
def test_each_setting_belongs_to_one_earliest_node_and_its_plan_begins_there(key: str) -> None:
    golden = KEYS[key]
    assert earliest_node(key) == golden["earliest"]
    assert golden["earliest"] is None or golden["earliest"] in NODES
    if golden["earliest"] is None:
        assert golden["jobs"] == {} or not in_own_file(key), "only a new name or folder re-runs what it does not change"
    elif golden["jobs"]:
        first = next(rule for rule in RULES if rule in golden["jobs"] and rule not in golden.get("asks_for", []))
        assert golden["earliest"] in RULES[first].names
    else:
        assert golden.get("only") or "on_in" in golden


@pytest.mark.parametrize("key", [key for key in KEYS if KEYS[key].get("only")])
def test_settings_with_one_value_have_one_value(key: str) -> None:
    section: Any = Settings
    *head, last = key.split(".")
    for name in head:
        section = section.model_fields[name].annotation
    assert get_args(section.model_fields[last].annotation) == (KEYS[key]["value"],)


@pytest.mark.parametrize("key", [key for key in KEYS if "on_in" in KEYS[key]])
def test_a_setting_that_is_switched_off_counts_where_it_is_on(key: str) -> None:
    """With `on_in` the earliest node is stale; without, the plan below shows that nothing is."""
    if key == "models.quantization":
        pytest.importorskip("bitsandbytes", reason="no bitsandbytes: pip install -e '.[quant]'")
    on = WorkflowConfig.from_dict(with_changes(SMALL, KEYS[key]["on_in"]))
    stages = on.settings.training.stages
    nodes = [n for n in NODES if not n.startswith("train_") or n.removeprefix("train_") in stages]
    after = on.with_values({key: KEYS[key]["value"]})
    assert next(node for node in nodes if on.digest(node) != after.digest(node)) == KEYS[key].get(
        "from_in", KEYS[key]["earliest"]
    )


@pytest.mark.parametrize("key", [key for key in KEYS if KEYS[key].get("refused")])
def test_a_setting_of_another_kind_of_model_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
        WorkflowConfig.from_dict(with_changes(SMALL, {key: KEYS[key]["value"]}))


def test_every_setting_makes_exactly_its_part_stale(twins: Project) -> None:
    planned = [key for key in filter(in_own_file, KEYS) if not KEYS[key].get("refused")]
    names = {key: f"K{number:03d}" for number, key in enumerate(planned)}
    for key, name in names.items():
        add_twin(twins, name, {key: KEYS[key]["value"]})
    add_twin(twins, "SAME", {})
    jobs = planned_jobs(twins, [file for name in [*names.values(), "SAME"] for file in targets(name)])
    assert counts(jobs_of("SAME", jobs)) == {}
    found = {key: counts(jobs_of(name, jobs)) for key, name in names.items()}
    assert found == {key: dict(sorted(KEYS[key]["jobs"].items())) for key in names}


@pytest.mark.parametrize("key", [*(key for key in KEYS if not in_own_file(key)), *SINGLY])
def test_a_setting_by_itself(twins: Project, key: str) -> None:
    golden, name = KEYS[key], KEYS[key].get("name", "SMALL")
    if golden.get("file") == "default":
        default = twins.root / "config/default.yaml"
        document = yaml.safe_load(default.read_text(encoding="utf-8"))
        section, setting = key.split(".")
        document[section][setting] = golden["value"]
        default.write_text(yaml.safe_dump(document), encoding="utf-8")
    else:
        twins.configure({key: golden["value"]})
    folders = {option: golden["value"] for option in ("results", "runs") if key == f"paths.{option}_dir"}
    assert plan(twins, targets(name, **folders)) == dict(sorted(golden["jobs"].items()))


@pytest.mark.parametrize("node", VERSIONED)
def test_a_raised_code_version_makes_its_node_and_what_follows_stale(
    finished: Project, tmp_path: Path, node: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'snakemake' in ' '.join(sys.orig_argv):\n"
        "    from dataclasses import replace\n"
        "    from panollava.dag.nodes import TABLE\n"
        f"    old = TABLE[{node!r}]\n"
        f"    TABLE[{node!r}] = replace(old, code_version=old.code_version + 1)\n"
    )
    found = plan(finished, env={"PYTHONPATH": str(tmp_path)})
    assert found == dict(sorted(GOLDEN["code_versions"][node].items()))


def test_what_says_the_same_changes_nothing(project: Project) -> None:
    """Comments, key order, notation, and other experiments: added, changed, broken."""
    text = project.yaml.read_text().replace("lr: 0.001", "lr: 1e-3")
    sections = text.split("\nlora:")
    project.yaml.write_text(f"# a comment\nlora:{sections[1]}\n{sections[0]}\n")
    assert "1e-3" in project.yaml.read_text()
    folder = project.root / "config/experiments"
    (folder / "OTHER.yaml").write_text(json.dumps(with_changes(SMALL, {"experiment.name": "OTHER", "lora.rank": 3})))
    (folder / "BROKEN.yaml").write_text("experiment: {name: BROKEN\n  lora: ][")
    (folder / "WRONG.yaml").write_text("experiment: {name: WRONG}\nlora: {rank: none}")
    assert plan(project) == {}


def test_new_numbers_in_other_words_change_nothing(project: Project) -> None:
    project.configure({"training.stage_configs.finetune.lr": 0.001, "image_processing.image_size": [32, 32]})
    assert plan(project) == {}
