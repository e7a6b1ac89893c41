"""Commands that are used wrongly: one line, the right exit code, and nothing of the user's is lost."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from panollava.cli import workflow
from panollava.cli.common import image_cache_of, results_dir_of
from panollava.cli.main import app, main
from panollava.cli.tables import print_table
from panollava.errors import ConfigError


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """A command's exit code and what it said on standard error."""
    monkeypatch.setattr("sys.argv", ["panollava", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return int(code or 0), capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (32, 64, 3), dtype=np.uint8)).save(tmp_path / "view_from_roof.png")
    (tmp_path / "prepared.csv").write_text("image_path,query,annotation\nview_from_roof.png,what?,a roof\n")
    (tmp_path / "predictions.csv").write_text("prediction,reference\na roof,a roof\n")
    return tmp_path


def test_no_command_writes_over_its_input(folder: Path, monkeypatch, capsys) -> None:
    (folder / "view_00.png").write_bytes((folder / "view_from_roof.png").read_bytes())
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    for words in (
        ["prepare", "prepared.csv", "--output-dir", "."],
        ["views", "view_00.png", "--output-dir", "."],
    ):
        code, said = call(monkeypatch, capsys, *words)
        assert code == 2 and "is an input" in said, words
    assert {path: path.read_bytes() for path in folder.iterdir()} == kept


def test_views_removes_only_views(folder: Path, monkeypatch, capsys) -> None:
    (folder / "view_99.png").touch()  # of an earlier call with more views
    code, _ = call(monkeypatch, capsys, "views", "view_from_roof.png", "--output-dir", ".", "--image-size", "16")
    assert code == 0 and (folder / "view_from_roof.png").is_file() and not (folder / "view_99.png").exists()


def test_a_file_in_the_place_of_a_folder_is_named(folder: Path, monkeypatch, capsys) -> None:
    (folder / "out").touch()
    for words in (
        ["views", "view_from_roof.png", "--image-size", "16"], ["eval", "--csv-input", "predictions.csv"],
        ["prepare", "prepared.csv"],
    ):  # fmt: skip
        for name in ("out", "out/below"):
            code, said = call(monkeypatch, capsys, *words, "--output-dir", name)
            assert code == 1 and "out is a file, but a folder is needed" in said, (words, said)
            assert "Errno" not in said


def test_wrong_options_are_wrong_usage(folder: Path, monkeypatch, capsys) -> None:
    results = folder / "predictions_eval"
    results.mkdir()
    (results / "metrics.json").write_text("older")
    for words in (
        ["eval", "--csv-input", "predictions.csv", "--protocol", "bogus"],
        ["eval", "--csv-input", "predictions.csv", "--max-samples", "3"],
        ["eval", "--csv-input", "predictions.csv", "--stage", "bogus"],
        ["eval"],
        ["views", "view_from_roof.png", "--output-dir", "out", "--image-size", "0"],
        ["prepare", "prepared.csv", "--output-dir", "out", "--max-rejected-fraction", "5"],
    ):
        assert call(monkeypatch, capsys, *words)[0] == 2, words
    assert (results / "metrics.json").read_text() == "older"


def test_what_cannot_be_read_leaves_older_results(folder: Path, monkeypatch, capsys) -> None:
    results = folder / "out"
    results.mkdir()
    (results / "metrics.json").write_text("older")
    code, said = call(monkeypatch, capsys, "eval", "--csv-input", "typo.csv", "--output-dir", "out")
    assert code == 1 and "typo.csv" in said and (results / "metrics.json").read_text() == "older"


def test_the_dags_results_are_its_own(folder: Path, monkeypatch, capsys) -> None:
    results = folder / "results/EXP1"
    results.mkdir(parents=True)
    (results / "checkpoint.json").write_text("{}")
    code, said = call(monkeypatch, capsys, "eval", "--csv-input", "predictions.csv", "--output-dir", "results/EXP1")
    assert code == 2 and "only the DAG writes" in said


def test_an_absent_picture_is_work_that_failed(folder: Path, monkeypatch, capsys) -> None:
    for words in (
        ["views", "nope.jpg", "--output-dir", "."],
        ["infer", "nope.jpg", "--query", "q", "--checkpoint-dir", "."],
    ):
        assert call(monkeypatch, capsys, *words) == (1, "error: nope.jpg: no such file\n")


def test_an_output_that_cannot_be_made_is_one_line(folder: Path, monkeypatch, capsys) -> None:
    (folder / "file").touch()
    code, said = call(monkeypatch, capsys, "views", "view_from_roof.png", "--output-dir", "file")
    assert code == 1 and said.startswith("error:") and "Traceback" not in said


@pytest.fixture
def project_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = Path(__file__).parents[2]
    (tmp_path / "config/experiments").mkdir(parents=True)
    (tmp_path / "config/default.yaml").write_text((root / "config/default.yaml").read_text())
    (tmp_path / "config/experiments/A.yaml").write_text("experiment: {name: A}\n")
    (tmp_path / "Snakefile").write_text("rule all:\n    shell: 'true'\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_of_commands_are_the_projects(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert results_dir_of(project_root) == Path("results")
    assert image_cache_of(project_root) == project_root / "cache/images"
    default = project_root / "config/default.yaml"
    default.write_text(default.read_text().replace("results_dir: results", "results_dir: elsewhere"))
    assert results_dir_of(project_root) == Path("elsewhere")
    assert results_dir_of(tmp_path_factory.mktemp("nothing")) == Path("results")


def test_words_of_run(project_root: Path) -> None:
    metrics = ["results/A/metrics.json", "runs/A_stage_state.json"]
    for before, word, expected in [
        (None, "A", metrics),
        ("-n", "A", metrics),
        ("--forcerun", "predict", ["predict"]),
        ("--cores", "4", ["4"]),
        (None, "all", ["all"]),
        (None, "results/A/metrics.json", ["results/A/metrics.json"]),
        (None, "config/experiments/A.yaml", metrics),
    ]:
        assert workflow._files_of(word, before) == (expected, False), word


def test_a_report_finds_the_projects_own_experiments(project_root: Path) -> None:
    assert workflow._without_targets(["A", "-n"]) is None
    for words in (["--report", "r.html", "A"], ["--report=r.html", "--", "A"]):
        assert workflow._without_targets(words) is None
    with pytest.raises(ConfigError, match="no experiment of this project has scores yet"):
        workflow._without_targets(["--report", "r.html"])
    (project_root / "results/A").mkdir(parents=True)
    (project_root / "results/A/metrics.json").write_text("{}")
    (project_root / "results/FOREIGN").mkdir()
    (project_root / "results/FOREIGN/metrics.json").write_text("{}")
    for words in (["--report", "r.html"], ["--report=r.html"], ["--cores", "2", "--report", "r.html"]):
        assert workflow._without_targets(words) == ["--", "A"]


@pytest.mark.parametrize("text", ["experiment: [", "experiment: {name: a b}"])
def test_run_of_a_broken_experiment_says_what_is_wrong(project_root: Path, text: str) -> None:
    (project_root / "config/experiments/BAD.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config/experiments/BAD\.yaml"):
        workflow._files_of("BAD", None)
    assert workflow._files_of("A", None)


def test_run_outside_a_project(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = call(monkeypatch, capsys, "run", "EXP1")
    assert code == 2 and "holds no Snakefile" in said


def test_config_show_warns_of_csvs_that_are_not_there(project_root: Path, monkeypatch, capsys) -> None:
    (project_root / "here.csv").write_text("url,query,annotation\na.png,q,x\n")
    (project_root / "config/experiments/B.yaml").write_text(
        "experiment: {name: B}\ndata: {csv_train: [here.csv, gone.csv], csv_val: here.csv, csv_test: null}\n"
    )
    monkeypatch.setattr("sys.argv", ["panollava", "config", "show", "B", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert not ended.value.code and said.err == "warning: data.csv_train: gone.csv does not exist\n"
    assert json.loads(said.out)["data"]["csv_train"] == ["here.csv", "gone.csv"]


def test_config_diff(project_root: Path, monkeypatch, capsys) -> None:
    (project_root / "config/experiments/B.yaml").write_text(
        "experiment: {name: B}\nlora: {rank: 4}\ndata: {csv_train: [a.csv, 'b c.csv']}\n"
    )

    def diff(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["panollava", "config", "diff", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        said = capsys.readouterr()
        assert said.err == ""
        return said.out

    rows = [line.split(maxsplit=1) for line in diff("A", "config/experiments/B.yaml").splitlines()[1:]]
    assert rows == [
        ["experiment.name", "A -> B"],
        ["data.csv_train", "data/quic360/train.csv -> [a.csv, b c.csv]"],
        ["lora.rank", "16 -> 4"],
    ]
    assert json.loads(diff("B", "A", "--json")) == {
        "a": "B",
        "b": "A",
        "differences": [
            {"key": "experiment.name", "a": "B", "b": "A"},
            {"key": "data.csv_train", "a": ["a.csv", "b c.csv"], "b": "data/quic360/train.csv"},
            {"key": "lora.rank", "a": 4, "b": 16},
        ],
    }
    assert diff("A", "A") == "A and A have the same settings\n"
    assert json.loads(diff("A", "A", "--json"))["differences"] == []
    assert diff("config/default.yaml", "B").splitlines()[1].split(maxsplit=1) == ["experiment.name", "null -> B"]
    for words in (["A", "NOPE"], ["A"], ["A", "config/absent.yaml"]):
        assert call(monkeypatch, capsys, "config", "diff", *words)[0] == 2


# The commands of SPEC 10.
COMMANDS = {
    "run", "status", "train", "eval", "infer", "compare", "prepare", "views", "models", "names", "check-env",
    "setup-metrics", "config show", "config diff", "export", "serve",
}  # fmt: skip


def commands_of(group: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= commands_of(command, f"{prefix}{name} ") if hasattr(command, "commands") else {prefix + name: command}
    return found


def test_every_command_is_there_and_its_help_has_an_example() -> None:
    found = commands_of(typer.main.get_command(app))
    assert found.keys() == COMMANDS
    for name, command in found.items():
        assert f"Example: `panollava {name}" in command.help, name


@pytest.mark.parametrize("words", [["--workflow-profile", "elsewhere"], ["--workflow-profile=elsewhere", "-n"]])
def test_a_profile_whose_executor_is_not_installed_is_one_line(tmp_path: Path, monkeypatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    profile = tmp_path / "elsewhere/config.yaml"
    for executor, advice in (
        ("slurm", r"pip install .*'\.\[slurm\]'"),
        ("moon-base", "snakemake-executor-plugin-moon-base"),
    ):
        profile.write_text(f"# executor: local\nexecutor: {executor}\njobs: 5\n")
        monkeypatch.setattr(workflow, "find_spec", lambda _: None)
        with pytest.raises(ConfigError, match=advice):
            workflow.run_snakemake(words)
        monkeypatch.setattr(workflow, "find_spec", lambda name: name)
        workflow._refuse_missing_executor(words)
    monkeypatch.setattr(workflow, "find_spec", lambda _: None)
    for text in ("jobs: 5\n", "executor: local\n"):
        profile.write_text(text)
        workflow._refuse_missing_executor(words)


def test_outside_a_project_the_error_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = call(monkeypatch, capsys, "status", "EXP1")
    assert code == 2 and f"{tmp_path} holds no config/experiments. Run this in the project's root" in said


def call_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> set[str]:
    """The words of a command's help."""
    monkeypatch.setattr("sys.argv", ["panollava", *words, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return set(capsys.readouterr().out.replace(",", " ").split())


def test_help_cuts_nothing_off(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name, command in commands_of(typer.main.get_command(app)).items():
        assert call_help(monkeypatch, capsys, *name.split()).issuperset(
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--")
        ), name  # fmt: skip
    listed = call_help(monkeypatch, capsys)
    assert not [word for word in listed if word.endswith(("...", "…")) and not word.startswith("[")]


@pytest.mark.parametrize(
    "words",
    [["names", "A"], ["config", "show", "A"], ["config", "diff", "A", "A"], ["models", "--list"], ["status", "A"]],
    ids=" ".join,
)
def test_json_is_one_document_and_nothing_else(project_root: Path, monkeypatch, capsys, words: list[str]) -> None:
    monkeypatch.setattr("sys.argv", ["panollava", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert isinstance(json.loads(capsys.readouterr().out), dict)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("names ", ["A", "grid_r1a1"]), ("run A", ["A"]), ("run g", ["grid", "grid_r1a1"]),
     ("train --model llama", ["llama_1b", "llama_3b"]), ("train --config A", ["A"]), ("eval --config g", ["grid_r1a1"]),
     ("names B", []), ("mod", ["models"])],
)  # fmt: skip
def test_the_shell_completes(project_root: Path, monkeypatch, capsys, typed: str, completed: list[str]) -> None:
    (project_root / "config/ablations").mkdir()
    (project_root / "config/ablations/grid.yaml").write_text("lora_configs: [{lora_r: 1, lora_alpha: 1}]\n")
    monkeypatch.setenv("_PANOLLAVA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"panollava {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" "))))
    monkeypatch.setattr("sys.argv", ["panollava"])
    with pytest.raises(SystemExit) as ended:
        app(prog_name="panollava")
    assert not ended.value.code and capsys.readouterr().out.split() == completed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tables_are_drawn_on_a_terminal_and_plain_elsewhere(monkeypatch, capsys) -> None:
    columns, rows = ["name", "size"], [["a", "1"], ["long name", "1,234"]]
    print_table(columns, rows, right=["size"])
    assert capsys.readouterr().out == "name        size\na              1\nlong name  1,234\n"
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout", screen)
    print_table(columns, rows, right=["size"])
    assert "\x1b[1m" in screen.getvalue() and "long name" in screen.getvalue()
