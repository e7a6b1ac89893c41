"""What `evaluation.extra` measures: perplexity, agreement of overlapping views, and how their scores are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tiny_models import language_folder, tiny_config, vision_folder

from panollava.config import ConfigError, WorkflowConfig
from panollava.config.schema import ExtraName
from panollava.dag.records import job_logs_of
from panollava.data.details import Details
from panollava.data.samples import Sample
from panollava.errors import EvaluationError
from panollava.evaluation.measures import EXTRA_NODES
from panollava.evaluation.measures import overlap as overlap_module
from panollava.evaluation.measures.measured import EXTRA, Measured, with_measures
from panollava.evaluation.measures.overlap import KEYS, Agreement, overlap
from panollava.evaluation.measures.overlap_plot import on_the_sphere, plot_overlap
from panollava.evaluation.measures.perplexity import perplexity
from panollava.evaluation.metrics.result import MetricResult
from panollava.evaluation.score import score_predictions
from panollava.models.losses import OverlapLoss
from panollava.models.positional import direction_features
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.views.geometry import view_rays
from panollava.views.strategies import plan_views

CPU = torch.device("cpu")
SAMPLES = [
    Sample(0, "a", "what is it?", ("a red box on your left", "red")),
    Sample(1, "b", "where is the blue sphere behind you?", ("behind you", "on your left, here")),
    Sample(2, "a", "describe the scene", ("a red box",)),
]
STAND_INS = {"a": "b", "b": "a"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    vision_folder(folder, "siglip")
    for family in ("qwen3", "gemma2", "llama-base"):
        language_folder(folder, family)
    return folder


@pytest.fixture(scope="module")
def build(root: Path) -> Callable[..., tuple[PanoramaVLM, PanoramaProcessor]]:
    def made(language: str = "qwen3", **settings: object) -> tuple[PanoramaVLM, PanoramaProcessor]:
        torch.manual_seed(0)
        model = PanoramaVLM(tiny_config(root, "siglip", language, **settings)).eval()
        return model, PanoramaProcessor.for_model(model.config, model.vision)

    return made


class Noise:
    """Pictures of noise, another one for each path."""

    def __init__(self, views: int) -> None:
        self.views = views

    def __getitem__(self, path: str) -> np.ndarray:
        rng = np.random.default_rng(list(path.encode()))
        return rng.integers(0, 256, (self.views, 16, 16, 3), dtype=np.uint8)


def test_the_scores_have_one_list_of_names() -> None:
    assert list(EXTRA) == list(EXTRA_NODES) == list(get_args(ExtraName))


@pytest.mark.parametrize("value", ["perplexity", ["perplexty"], ["perplexity", "perplexity"], [1], None])
def test_unknown_scores_are_refused_when_the_configuration_is_read(value: object) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.extra must be a list of some of perplexity, overlap_consist"):
        WorkflowConfig.from_dict({"evaluation": {"extra": value}})


@pytest.mark.parametrize("names", [["mine:bleu4"], ["mine:perplexity"], ["mine:f", "yours:f"]])
def test_custom_metrics_with_a_taken_name_are_refused_when_the_configuration_is_read(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.custom_metrics .*which another metric has: rename"):
        WorkflowConfig.from_dict({"evaluation": {"custom_metrics": names}})


def test_the_logs_of_measures_are_among_those_that_a_status_is_read_from() -> None:
    data = dict.fromkeys(("csv_train", "csv_val", "csv_test"), "synthetic")
    models = {"vision_name": "miniature/siglip", "language_model_name": "miniature/qwen3"}
    document = {"experiment": {"name": "E"}, "data": data, "models": models, "evaluation": {"extra": ["perplexity"]}}
    config = WorkflowConfig.from_dict(document)
    found = {rule: (path, digests) for rule, path, digests in job_logs_of(config)}
    assert found["measure_perplexity"] == ("logs/E/measure_perplexity.log", {config.digest("measure_perplexity")})
    assert not {"measure_overlap", "predict_rolled"} & found.keys()


# ---- perplexity ----------------------------------------------------------------------------------
@pytest.mark.parametrize("language", ["qwen3", "gemma2", "llama-base"])  # gemma2: the picture exceeds its window
def test_perplexity_is_the_training_loss_token_by_token(build: Any, language: str) -> None:
    model, processor = build(language)
    pictures = Noise(len(model.views))
    rows = [(sample, text) for sample in SAMPLES for text in sample.references]
    encoded = [model.prompt.training(sample.query, text, 999) for sample, text in rows]

    def plain(stand_ins: dict[str, str]) -> float:
        shown = [stand_ins.get(sample.image_path, sample.image_path) for sample, _ in rows]
        pixels = processor.pixels(np.stack([pictures[path] for path in shown]))
        with torch.no_grad():
            loss = model(pixels, **model.prompt.collate(encoded, "right"), stage="finetune")["loss"]
        return math.exp(loss)

    found = perplexity(model, processor, SAMPLES, pictures, batch_size=2, device=CPU, stand_ins=STAND_INS)
    assert found.metrics["perplexity"].value == pytest.approx(plain({}), rel=1e-5)
    assert found.blind["perplexity"] == pytest.approx(plain(STAND_INS), rel=1e-5)
    assert abs(found.metrics["perplexity"].value - found.blind["perplexity"]) > 1e-4  # the picture does matter
    assert found.metrics["perplexity"].lower_is_better
    assert [row["tokens"] for row in found.samples] == [
        sum(
            label != -100
            for (sample, _), one in zip(rows, encoded, strict=True)
            if sample is own
            for label in one.labels
        )
        for own in SAMPLES
    ]
    one_by_one = perplexity(model, processor, SAMPLES, pictures, batch_size=1, device=CPU)
    assert one_by_one.metrics["perplexity"].value == pytest.approx(found.metrics["perplexity"].value, rel=1e-6)
    assert one_by_one.blind == {"perplexity": None}


def test_of_shuffled_options_the_right_letter_is_the_one_that_is_shown() -> None:
    """Perplexity asks for what a model that knows the reference would answer to this very prompt."""
    details = Details("choice", ("a cat", "a dog", "a cow"))
    asked = Sample(
        0, "a", "Which is nearer?", ("a dog", "B", "It barks: (b)"), details, shown=("a cow", "a dog", "a cat")
    )
    assert "B. a dog" in asked.prompt and asked.targets == ("B", "B", "B")
    asked = replace(asked, shown=("a dog", "a cow", "a cat"))
    assert "A. a dog" in asked.prompt and asked.targets == ("A", "A", "A")
    assert replace(asked, shown=()).targets == ("B", "B", "It barks: (b)")


def test_references_of_white_space_do_not_count(build: Any) -> None:
    model, processor = build()
    some = [replace(SAMPLES[0], references=("red", " ")), replace(SAMPLES[1], references=(" \n",))]
    found = perplexity(model, processor, some, Noise(9), batch_size=4, device=CPU)
    assert [row["sample_id"] for row in found.samples] == [0] and found.details == {"references": 1, "left_out": 0}
    none = perplexity(model, processor, some[1:], Noise(9), batch_size=4, device=CPU)
    assert none.metrics["perplexity"].value is None
    assert none.metrics["perplexity"].reason == "no question has a reference that the language model can take in"


def test_references_beyond_the_models_positions_are_left_out_and_counted(build: Any) -> None:
    model, processor = build()
    whole = perplexity(model, processor, SAMPLES[:1], Noise(9), batch_size=4, device=CPU)
    lengths = [len(model.prompt.training(SAMPLES[0].query, text, 999).input_ids) for text in SAMPLES[0].references]
    model.language.positions = min(lengths)
    try:
        found = perplexity(model, processor, SAMPLES[:1], Noise(9), batch_size=4, device=CPU)
    finally:
        model.language.positions = None
    assert found.details == {"references": 1, "left_out": 1}
    assert found.samples[0]["tokens"] < whole.samples[0]["tokens"]


def test_weights_that_give_no_probabilities_are_an_error(build: Any) -> None:
    model, processor = build()
    with torch.no_grad():
        for parameter in model.projection.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(EvaluationError, match="perplexity is nan: the weights give no probabilities"):
        perplexity(model, processor, SAMPLES, Noise(9), batch_size=4, device=CPU)


# ---- overlap -------------------------------------------------------------------------------------
GRID = (8, 8)


def maps_of_directions(strategy: str) -> tuple[Any, torch.Tensor]:
    """Views, and token maps [1, V, S, D] of an ideal encoder: a token says where it looks, and nothing else."""
    views = plan_views(strategy)
    rays = np.stack([view_rays(view, *GRID).reshape(-1, 3) for view in views])
    return views, torch.from_numpy(direction_features(rays)).float()[None]


def agreement_of(
    views: Any, maps: torch.Tensor, others: torch.Tensor | None = None
) -> tuple[dict[str, float], Agreement]:
    sums = overlap_module._Sums(views, OverlapLoss(views, GRID))
    found = sums.add(maps, others)
    return {name: float(value[0]) for name, value in found.items()}, sums.agreement(1)


@pytest.mark.parametrize("strategy", ["e2p", "anyres_e2p", "sliding_window", "anyres"])
def test_an_ideal_encoder_agrees_a_collapsed_or_random_one_does_not(strategy: str) -> None:
    views, maps = maps_of_directions(strategy)
    ideal, agreement = agreement_of(views, maps)
    assert ideal["_matched"] > 0.97 and ideal[""] == pytest.approx(ideal["_matched"] - ideal["_unmatched"])
    assert ideal["_found"] > 0.9
    assert np.nanmin(agreement.contrast(agreement.sums)) > 0
    falling = [point["similarity"] for point in agreement.by_angle()[:5]]
    assert falling == sorted(falling, reverse=True) and agreement.by_angle()[0]["angle_deg"] == 0.0
    same_everywhere, _ = agreement_of(views, torch.ones_like(maps))
    assert same_everywhere["_matched"] == pytest.approx(1) and same_everywhere[""] == pytest.approx(0, abs=1e-6)
    random, _ = agreement_of(views, torch.randn(maps.shape, generator=torch.Generator().manual_seed(0)))
    assert abs(random[""]) < 0.05
    # Of an encoder that says only where in its picture a token stands, nothing is left beyond the blind value.
    by_place = maps[:, -1:].expand_as(maps)
    place, _ = agreement_of(views, by_place, by_place)
    assert place[""] < ideal[""] - 0.1 and place["_blind"] == pytest.approx(place[""])


def test_the_blind_value_is_layout_alone() -> None:
    """Content that differs between panoramas, and a part that follows from the direction: blind, the part remains."""
    views, layout = maps_of_directions("e2p")
    seed = torch.Generator().manual_seed(1)
    turn = [torch.linalg.qr(torch.randn(layout.shape[-1], layout.shape[-1], generator=seed))[0] for _ in range(2)]
    one, other = (torch.cat([layout @ q, 0.5 * layout], dim=-1) for q in turn)
    found, agreement = agreement_of(views, one, other)
    assert 0 < found["_blind"] < 0.5 * found[""]
    assert agreement.by_angle()[0]["blind"] < agreement.by_angle()[0]["similarity"] - 0.4


def test_scores_by_direction_lie_where_they_were_measured() -> None:
    views, maps = maps_of_directions("e2p")
    _, agreement = agreement_of(views, maps)
    rays = np.stack([view_rays(views[j], *GRID).reshape(-1, 3) for _, j in agreement.pairs])
    own = np.take_along_axis(rays, agreement.geometry.rows.numpy()[..., None], axis=1)  # [pairs, L, 3]
    whole = view_rays(plan_views("resize")[0], 96, 192)
    for axis in range(3):  # a value that is the direction itself must come back as the direction
        drawn = on_the_sphere(agreement, own[..., axis])
        seen = np.isfinite(drawn)
        assert np.abs(drawn - whole[..., axis])[seen].max() < 0.25
        assert seen[48].all() and not seen[:16].any() and not seen[-16:].any()  # the horizon, without a seam; no poles


def test_views_without_shared_directions_have_no_score_but_a_reason_and_a_sheet(build: Any, tmp_path: Path) -> None:
    model, processor = build(crop_strategy="resize")
    measured, agreements = overlap(model, processor, ["a", "b"], Noise(1), device=CPU, stand_ins=STAND_INS)
    assert agreements == {}
    for key in KEYS:
        assert measured.metrics[key].value is None and measured.blind[key] is None
        assert (measured.metrics[key].reason or "").startswith("crop_strategy resize gives no views that share dir")
    plot_overlap(agreements, tmp_path / "none.png", "T")
    assert (tmp_path / "none.png").read_bytes().startswith(b"\x89PNG")


def test_a_resampler_that_keeps_no_directions_leaves_the_encoders_score(build: Any, tmp_path: Path) -> None:
    options = {"resampler_type": "perceiver", "perceiver": {"num_queries": 1, "layers": 1, "heads": 2}}
    model, processor = build(**options)
    measured, agreements = overlap(model, processor, ["a", "b"], Noise(9), device=CPU, stand_ins=STAND_INS)
    assert measured.metrics["dino_similarity"].value is not None and set(agreements) == {"dino_similarity"}
    assert measured.metrics["overlap_consistency"].value is None
    assert "at this grid of tokens" in (measured.metrics["overlap_consistency"].reason or "")
    plot_overlap(agreements, tmp_path / "o.png", "T")
    assert (tmp_path / "o.png").stat().st_size > 20_000


def test_overlap_of_pictures_is_the_mean_of_each(build: Any, tmp_path: Path) -> None:
    model, processor = build()
    paths = [f"picture {number}" for number in range(19)]  # more than are encoded at once
    cycle = dict(zip(paths, paths[1:] + paths[:1], strict=True))
    measured, agreements = overlap(model, processor, paths, Noise(9), device=CPU, stand_ins=cycle)
    assert [row["image_path"] for row in measured.samples] == paths
    alone, _ = overlap(model, processor, paths[7:8], Noise(9), device=CPU)
    for key in KEYS:
        assert measured.metrics[key].value == pytest.approx(np.mean([row[key] for row in measured.samples]))
        assert alone.metrics[key].value == pytest.approx(measured.samples[7][key], abs=1e-5)
        assert alone.blind[key] is None and measured.blind[key] is not None
        details = measured.details[key]
        assert details["matched"] - details["unmatched"] == pytest.approx(measured.metrics[key].value)
        matched = agreements[key].contrast(agreements[key].sums / 19)
        assert np.nanmean(matched) == pytest.approx(measured.metrics[key].value, abs=1e-5)
    plot_overlap(agreements, tmp_path / "o.png", "T", np.zeros((64, 128, 3), np.uint8))
    assert (tmp_path / "o.png").stat().st_size > 20_000


# ---- how scores are kept -------------------------------------------------------------------------
def measured_rows() -> Measured:
    result = MetricResult(None, "1 or more", "panollava", "0", "s", lower_is_better=True)
    rows = [{"image_path": name, "nll": float(n + 1), "tokens": 2} for n, name in enumerate("aabbcdefgh")]
    measured = Measured({"perplexity": result}, {"perplexity": 4.0}, rows, {"references": 10})
    measured.metrics["perplexity"] = replace(result, value=measured.sums("perplexity").total())
    return measured


def test_a_measure_survives_its_file(tmp_path: Path) -> None:
    measured = measured_rows()
    measured.write(tmp_path / "m.json", {"config": "abc"})
    assert Measured.read(tmp_path / "m.json") == measured
    assert json.loads((tmp_path / "m.json").read_text())["provenance"] == {"config": "abc"}
    for text in ("", "{}", "[]", '{"samples": 1}'):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(EvaluationError, match=r"broken\.json is not what a measure writes"):
            Measured.read(tmp_path / "broken.json")


def test_measurements_of_pictures_count_once_however_many_questions_there_are() -> None:
    pictures = [{"image_path": "a", "overlap_consistency": 1.0}, {"image_path": "b", "overlap_consistency": 0.0}]
    result = MetricResult(0.5, "s", "panollava", "0")
    measured = Measured({"overlap_consistency": result}, {"overlap_consistency": None}, pictures)
    rows = [{"image_path": name, "original_query": str(n)} for n, name in enumerate("aaab")]
    found = measured.aligned("overlap_consistency", [*rows, {"image_path": "c", "original_query": "q"}])
    assert found.total() == pytest.approx(0.5)
    assert found.per_sample == pytest.approx(np.array([[1 / 3, 1 / 3]] * 3 + [[0, 1], [0, 0]]))


def test_scores_enter_the_report_with_intervals_by_image() -> None:
    rows = [{"image_path": "a", "original_query": "q", "prediction": "x", "reference": "x"}]
    report = score_predictions(rows, metrics=["rouge_l"], blind_rows=rows)
    whole = with_measures(report, ["perplexity", "yaw_equivariance"], [measured_rows()], draws=200)
    assert list(whole.metrics) == ["rouge_l", "perplexity"] == list(whole.blind or ())
    result = whole.metrics["perplexity"]
    assert result.value == pytest.approx(math.exp(55 / 20)) and whole.blind == {"rouge_l": 1.0, "perplexity": 4.0}
    assert result.interval is not None and math.exp(0.75) <= result.interval[0] < result.value < result.interval[1]
    assert with_measures(report, ["perplexity"], [measured_rows()], 0).metrics["perplexity"].interval is None
    assert with_measures(report, [], [measured_rows()], 9) == report
    assert with_measures(replace(report, blind=None), ["perplexity"], [measured_rows()], 0).blind is None
    with pytest.raises(EvaluationError, match="perplexity is measured, and a custom metric has the same key"):
        with_measures(whole, ["perplexity"], [measured_rows()], 0)
