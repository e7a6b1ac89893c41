"""Each metric against the library that defines it, on small made texts and on a published prediction file."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import pytest

from panollava.evaluation.metrics import METRICS, MetricUnavailable, TextSet, wordnet
from panollava.evaluation.metrics import java as java_module
from panollava.evaluation.metrics.bleu import reference_streams
from panollava.evaluation.metrics.meteor import _tools
from panollava.evaluation.metrics.ptb import PUNCTUATION, PtbTokens, tokenize_lines
from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.protocols import collapse
from panollava.evaluation.score import score_predictions

PEER = Path(__file__).parents[3] / "shared" / "data" / "peer_predictions" / "predictions.csv"
needs_java = pytest.mark.skipif(
    java_module.java_version() is None, reason="Java is not installed (panollava check-env)"
)
needs_wordnet = pytest.mark.skipif(
    wordnet.wordnet_source() is None, reason="WordNet is not installed (panollava check-env)"
)
needs_peer = pytest.mark.skipif(not PEER.is_file(), reason=f"{PEER} is absent")

WORDS = (
    "a",
    "the",
    "red",
    "box",
    "car",
    "is",
    "behind",
    "you",
    "stands",
    "running",
    "dogs",
    "quickly",
    ",",
    "street's",
)


def made_texts(samples: int = 30, seed: int = 0) -> TextSet:
    """Random sentences with 1 to 4 references each, a few of them equal to the prediction or empty."""
    draw = random.Random(seed)

    def sentence() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(3, 14)))

    predictions = [sentence() for _ in range(samples)]
    references = [[sentence() for _ in range(draw.randint(1, 4))] for _ in range(samples)]
    references[0] = [predictions[0]]
    predictions[1] = ""
    return TextSet(predictions, references)


def coco_tokens(captions: list[str]) -> list[str]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    found = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(captions)})
    return [found[i][0] for i in range(len(captions))]


@needs_java
def test_ptb_tokens_are_pycocoevalcaps() -> None:
    from pycocoevalcap.tokenizer import ptbtokenizer

    assert set(ptbtokenizer.PUNCTUATIONS) == PUNCTUATION
    captions = ['He said: "No (really)!" - and left...', "A man's dog; U.S. etc.", "Don't; it's 3,000 $", "None"]
    assert tokenize_lines(captions) == coco_tokens(captions)


@needs_java
def test_ptb_keeps_one_line_per_caption_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    nasty = [
        "",
        "한국어 캡션.",
        "a\rb",
        "x\u2028y",
        "\x85\x0b\x0c\u2029",
        "|||",
        "\x00\ufeff",
        "😀",
        "\"q\" ``r''",
        "<doc>",
        "",
    ]
    found = tokenize_lines([collapse(text) for text in nasty])
    assert len(found) == len(nasty)
    assert found[1:4] == ["한국어 캡션", "a b", "x y"]
    assert found[5] == "| | |"
    assert tokenize_lines([]) == []
    with pytest.raises(ValueError, match="one line per caption"):
        tokenize_lines(["a\nb"])


@needs_java
def test_ptb_tokens_do_not_depend_on_the_neighbours() -> None:
    captions = ["The U.S.", "Mr.", "The end", "etc.", "Big", "it's", "“so”"]
    assert tokenize_lines(captions[::-1])[::-1] == tokenize_lines(captions)


def test_ptb_asks_once_for_each_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fake(lines: list[str]) -> list[str]:
        asked.append(list(lines))
        return [line.upper() for line in lines]

    monkeypatch.setattr("panollava.evaluation.metrics.ptb.tokenize_lines", fake)
    tokens = PtbTokens()
    tokens.add(["a", "b", "a"])
    tokens.add(["b", "c"])
    assert asked == [["a", "b"], ["c"]]
    assert tokens["c"] == "C"


def test_bleu_is_sacrebleus_on_padded_streams() -> None:
    import sacrebleu

    texts = made_texts()
    width = max(len(refs) for refs in texts.references)
    streams = [[(list(refs) + [None] * width)[k] for refs in texts.references] for k in range(width)]
    result = METRICS["bleu4"](texts)
    assert result.value == pytest.approx(sacrebleu.corpus_bleu(list(texts.predictions), streams).score / 100, abs=1e-12)
    assert result.signature is not None and "tok:13a" in result.signature
    assert reference_streams([["a", "b"], ["c"]]) == [["a", "c"], ["b", None]]


def test_bleu_of_equal_texts_is_one_and_of_nothing_is_zero() -> None:
    same = "a red box is behind you"
    assert METRICS["bleu4"](TextSet([same] * 2, [[same, "other"], [same]])).value == pytest.approx(1.0)
    assert METRICS["bleu4"](TextSet(["", ""], [[same], [same]])).value == 0.0


def test_rouge_is_the_best_reference_of_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    texts = made_texts()
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    wanted = [
        scorer.score_multi(list(refs), text)["rougeL"].fmeasure
        for text, refs in zip(texts.predictions, texts.references, strict=True)
    ]
    assert METRICS["rouge_l"](texts).value == pytest.approx(sum(wanted) / len(wanted), abs=1e-12)


@needs_java
def test_cider_is_pycocoevalcaps() -> None:
    from pycocoevalcap.cider.cider import Cider

    texts = made_texts()
    tokens = dict(zip(texts.captions(), coco_tokens(texts.captions()), strict=True))
    res = {i: [tokens[text]] for i, text in enumerate(texts.predictions[:6])}
    gts = {i: [tokens[text] for text in refs] for i, refs in enumerate(texts.references[:6])}
    wanted, _ = Cider().compute_score(gts, res)
    found = METRICS["cider"](TextSet(texts.predictions[:6], texts.references[:6])).value
    assert found == pytest.approx(wanted, abs=1e-9)
    assert found > 1.0


@needs_java
def test_cider_without_any_reference_word_has_no_value() -> None:
    with pytest.raises(MetricUnavailable, match="no reference holds a word"):
        METRICS["cider"](TextSet(["a box"], [["..."]]))


@needs_java
@needs_wordnet
def test_meteor_is_nltks() -> None:
    from nltk.translate.meteor_score import meteor_score

    texts = made_texts()
    predictions, references = texts.words()
    reader = wordnet.load_wordnet()
    wanted = [
        meteor_score([ref.split() for ref in refs], text.split(), wordnet=reader)
        for text, refs in zip(predictions, references, strict=True)
    ]
    assert METRICS["meteor"](texts).value == pytest.approx(sum(wanted) / len(wanted), abs=1e-12)


@needs_wordnet
def test_meteor_matches_wordnets_synonyms() -> None:
    """car and auto share a synset, banana and auto none. NLTK looks up stems: `automobile` would not be found."""

    def score(prediction: str, reference: str) -> float:
        value = METRICS["meteor"](TextSet([prediction], [[reference]], coco_tokens=False)).value
        assert value is not None
        return value

    assert score("the red car", "the red auto") == score("the red car", "the red car") > 0.98
    assert score("the red banana", "the red auto") < 0.7
    assert score("the running dogs", "the run dog") == score("the red car", "the red car")  # stems
    assert score("", "the red car") == 0.0


@needs_wordnet
def test_remembered_wordnet_names_the_same_synonyms() -> None:
    reader = wordnet.load_wordnet()
    remembered, stemmer = _tools()
    for word in ("car", "dogs", "ran", "better", "box", "zzz", "'s"):
        wanted = {lemma.name() for synset in reader.synsets(word) for lemma in synset.lemmas()}
        assert {lemma.name() for synset in remembered.synsets(word) for lemma in synset.lemmas()} == wanted
    assert stemmer.stem("running") == "run"


def test_lexnames_is_wordnets_table() -> None:
    lines = [line.split("\t") for line in wordnet.lexnames().splitlines()]
    assert [int(number) for number, _, _ in lines] == list(range(45))
    kinds = {"noun": "1", "verb": "2", "adj": "3", "adv": "4"}
    assert all(kind == kinds[name.split(".")[0]] for _, name, kind in lines)
    names = {int(number): name for number, name, _ in lines}
    known = {0: "adj.all", 3: "noun.Tops", 28: "noun.time", 29: "verb.body", 43: "verb.weather", 44: "adj.ppl"}
    assert {number: names[number] for number in known} == known


@pytest.mark.skipif(bool(wordnet.missing_debian_files()), reason="Debian's WordNet packages are not installed")
def test_debians_wordnet_is_completed_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is whole, private and made once; the table's numbers fit the data files."""
    monkeypatch.setenv("PANOLLAVA_CACHE", str(tmp_path / "cache"))
    previous = os.umask(0o002)  # the usual one where every user has a group
    try:
        folder = wordnet._debian_copy()
    finally:
        os.umask(previous)
    assert wordnet._debian_copy() == folder and not list(folder.parent.glob(".wordnet-*"))
    assert {path.name for path in folder.iterdir()} == {*wordnet.FILES, "lexnames"}
    assert not any(
        path.stat().st_mode & 0o022 for path in (folder.parents[1], folder.parent, folder, *folder.iterdir())
    )
    table = [line.split("\t")[1] for line in (folder / "lexnames").read_text().splitlines()]
    wanted = {"oak": "noun.plant", "dog": "noun.animal", "Monday": "noun.time", "castle": "noun.artifact"}
    found: dict[str, set[str]] = {word: set() for word in wanted}
    for line in (folder / "data.noun").open(encoding="utf-8"):
        fields = line.split()
        if not line.startswith(" ") and fields[4] in found:
            found[fields[4]].add(table[int(fields[1])])
    assert all(name in found[word] for word, name in wanted.items())


def test_missing_wordnet_is_a_reason_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordnet, "DEBIAN_FOLDER", tmp_path)
    monkeypatch.setattr(wordnet, "_nltk_corpus", lambda: None)
    with pytest.raises(MetricUnavailable, match=r"WordNet 3\.0 not installed .*check-env"):
        wordnet.load_wordnet.__wrapped__()
    assert wordnet.wordnet_source() is None


@needs_peer
@needs_java
@needs_wordnet
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("protocol", "samples", "wanted", "tolerance"),
    [
        (
            "grouped",
            1149,
            {"bleu4": 0.054692, "meteor": 0.253895, "rouge_l": 0.271871, "cider": 0.091746},
            5e-7,
        ),
        ("per-annotation", 5961, {"bleu4": 0.014800, "cider": 0.111388}, 5e-7),  # all four: benchmarks/metrics.py
        (
            "original",
            5961,
            {"bleu4": 0.01273963069729889, "meteor": 0.15028136259787567, "cider": 0.08501660164156298},
            1e-9,
        ),
    ],
)
def test_published_predictions_give_the_known_scores(
    protocol: str, samples: int, wanted: dict[str, float], tolerance: float
) -> None:
    """SPEC's two protocols to the digits known, the original recipe to the digits that its authors published."""
    report = score_predictions(read_predictions(PEER), protocol, metrics=list(wanted))
    assert (report.num_samples, report.num_references) == (samples, 5961)
    for name, value in wanted.items():
        assert report.metrics[name].value == pytest.approx(value, abs=tolerance), name


@needs_peer
def test_published_file_is_read_to_the_character() -> None:
    rows = read_predictions(PEER)
    with PEER.open(newline="", encoding="utf-8") as stream:
        assert rows == list(csv.DictReader(stream))
    assert sum(row["reference"] == "nan" for row in rows) == 3
