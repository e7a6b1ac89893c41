"""Each metric against the library that defines it, on small made texts and on a published prediction file."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path
from typing import get_args

import pytest
from plain_metrics import one_answer_each, plain_metrics, plain_tokens

from panollava.evaluation.metrics import METRICS, MetricUnavailable, TextSet, wordnet
from panollava.evaluation.metrics import java as java_module
from panollava.evaluation.metrics.ptb import PUNCTUATION, PtbTokens, tokenize_lines
from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.protocols import PROTOCOLS, apply_protocol, collapse
from panollava.evaluation.score import score_predictions
from panollava.settings.choices import MetricName

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


@needs_java
def test_ptb_tokens_are_pycocoevalcaps() -> None:
    from pycocoevalcap.tokenizer import ptbtokenizer

    assert set(ptbtokenizer.PUNCTUATIONS) == PUNCTUATION
    captions = ['He said: "No (really)!" - and left...', "A man's dog; U.S. etc.", "Don't; it's 3,000 $", "None"]
    assert tokenize_lines(captions) == plain_tokens(captions, [])[0]


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


NEIGHBOURS = [
    "go to door A.",
    "it is on platform no.",
    "The U.S.",
    "Mr.",
    "The end",
    "etc.",
    "Big",
    "it's",
    "5 doors",
    "x",
]


@needs_java
def test_ptb_tokens_do_not_depend_on_the_neighbours() -> None:
    """Plainly, a letter or "no." at a caption's end has other tokens before a sentence, or before a number."""
    found = dict(zip(NEIGHBOURS, tokenize_lines(NEIGHBOURS), strict=True))
    mixed = random.Random(0).sample(NEIGHBOURS * 20, 20 * len(NEIGHBOURS))
    assert tokenize_lines(mixed) == [found[caption] for caption in mixed]
    alone = [plain_tokens([caption], [["a"]])[0][0] for caption in NEIGHBOURS]
    assert list(found.values()) == alone


@needs_java
def test_the_order_of_rows_changes_no_score() -> None:
    texts = ["go to door A.", "The door no.", "5 doors are behind door A."]
    rows = [
        {"image_path": f"{i}", "original_query": "", "prediction": text, "reference": f"{text} You see it there"}
        for i, text in enumerate(texts)
    ]
    scored = [
        score_predictions([rows[i] for i in order], metrics=["meteor", "cider"], lenient=True).metrics
        for order in ((0, 1, 2), (1, 2, 0), (2, 1, 0))
    ]
    for other in scored[1:]:
        for key, result in other.items():
            assert result.value == pytest.approx(scored[0][key].value, abs=1e-12), key
            assert result.signature == scored[0][key].signature
    assert "|tok:ptb-3.4.1|captions:apart|" in str(scored[0]["cider"].signature)


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


def test_the_configuration_names_every_metric_and_no_other() -> None:
    assert tuple(METRICS) == get_args(MetricName)


def test_bleu_of_equal_texts_is_one_and_of_nothing_is_zero() -> None:
    same = "a red box is behind you"
    assert METRICS["bleu4"].compute(TextSet([same] * 2, [[same, "other"], [same]])).value == pytest.approx(1.0)
    assert METRICS["bleu4"].compute(TextSet(["a b c d e"], [["a b c d e"]])).value == 1.0, "sacrebleu: 4e-16 more"
    assert METRICS["bleu4"].compute(TextSet(["", ""], [[same], [same]])).value == 0.0


@needs_java
def test_cider_without_any_reference_word_has_no_value() -> None:
    with pytest.raises(MetricUnavailable, match="no reference holds a word"):
        METRICS["cider"].compute(TextSet(["a box"], [["..."]]))


@needs_wordnet
def test_meteor_matches_wordnets_synonyms() -> None:
    """car and auto share a synset, banana and auto none. NLTK looks up stems: `automobile` would not be found."""

    def score(prediction: str, reference: str) -> float:
        value = METRICS["meteor"].compute(TextSet([prediction], [[reference]], protocol="original")).value
        assert value is not None
        return value

    assert score("the red car", "the red auto") == score("the red car", "the red car") > 0.98
    assert score("the red banana", "the red auto") < 0.7
    assert score("the running dogs", "the run dog") == score("the red car", "the red car")  # stems
    assert score("", "the red car") == 0.0


def test_nltks_corpus_in_the_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where setup-metrics puts it for a user who may not install packages."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PANOLLAVA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NLTK_DATA", raising=False)
    corpus = tmp_path / "cache/nltk_data/corpora/wordnet.zip"
    corpus.parent.mkdir(parents=True)
    corpus.touch()
    assert wordnet.wordnet_source() == f"nltk_data: {corpus}"


@needs_wordnet
def test_synonyms_are_those_of_nltks_synsets() -> None:
    reader = wordnet.load_wordnet()
    remembering = wordnet.Synonyms(reader)
    for word in ("car", "Dogs", "ran", "better", "galore", "box", "zzz", "'s", "", "한국어", *WORDS):
        found, expected = (
            {lemma.name() for synset in source.synsets(word) for lemma in synset.lemmas()}
            for source in (remembering, reader)
        )
        assert found == expected, word


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


# --- against the libraries, called plainly

ADVERSARIAL = [
    "", "None", "NA", "nan", "한국어 캡션입니다.", "a red box\rbehind you", "x\u2028y\u2029z\x85w", "|||",
    "a ||| b |||", "\"quoted\" ``text'' 'so'", "a\u00a0no-break\u200bspace", "U.S. etc... 3,000.50$ 50% -5- a-b --",
    "<skipped> &quot;a&amp;b&lt;",
    "\x00\ufeff\x1c", "😀 ΑΣ İI ß", "the the the the the the", "a red box is behind you", "A RED BOX IS BEHIND YOU.",
    "word " * 20_000, "x" * 100_000, "a.b,c-d " * 12_500,
]  # fmt: skip


def against_libraries(predictions: list[str], references: list[list[str]], protocol: str) -> None:
    """Every score equals its library's to 1e-9, and so do the sums over samples that intervals are made of."""
    texts = TextSet(
        [collapse(text) for text in predictions], [[collapse(t) for t in refs] for refs in references], protocol
    )
    words = plain_tokens(texts.predictions, texts.references) if texts.coco_tokens else None
    assert words is None or texts.words() == words
    for name, library in plain_metrics(texts.predictions, texts.references, words).items():
        result = METRICS[name].compute(texts)
        assert result.value == pytest.approx(library(), abs=1e-9), (protocol, name)
        assert result.samples is not None and len(result.samples.per_sample) == len(predictions)
        assert result.samples.total() == pytest.approx(result.value, abs=1e-9), (protocol, name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("what", ["made", "adversarial"])
@needs_java
@needs_wordnet
def test_every_metric_is_its_librarys(what: str, protocol: str) -> None:
    if what == "made":
        texts = made_texts(seed=PROTOCOLS.index(protocol))
        predictions, references = list(texts.predictions), [list(refs) for refs in texts.references]
    else:
        short = [text for text in ADVERSARIAL if len(text) < 1000]
        predictions = [*ADVERSARIAL, *short]
        references = [[short[(3 * i + k) % len(short)] for k in range(1 + i % 3)] for i in range(len(predictions))]
        references[short.index("a red box is behind you")] += ADVERSARIAL[len(short) :]
    if protocol != "grouped":
        pairs = [(text, ref) for text, refs in zip(predictions, references, strict=True) for ref in refs]
        predictions, references = [text for text, _ in pairs], [[ref] for _, ref in pairs]
    against_libraries(predictions, references, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@needs_peer
@needs_java
@needs_wordnet
def test_every_metric_is_its_librarys_on_published_answers(protocol: str) -> None:
    """Every tenth picture of the file; all of it: benchmarks/metrics.py."""
    rows = read_predictions(PEER)
    pictures = sorted({row["image_path"] for row in rows})[::10]
    chosen = [row for row in rows if row["image_path"] in pictures]
    scored = apply_protocol(one_answer_each(chosen) if protocol == "grouped" else chosen, protocol)
    assert scored.num_samples > 100
    against_libraries(scored.predictions, scored.references, protocol)


@needs_peer
@needs_java
@needs_wordnet
@pytest.mark.parametrize(
    ("protocol", "samples", "wanted", "tolerance"),
    [
        (
            "grouped",
            1149,
            {"bleu4": 0.054692, "meteor": 0.253895, "rouge_l": 0.271871, "cider": 0.091746},
            5e-7,
        ),
        ("per-annotation", 5961, {"bleu4": 0.0148, "meteor": 0.159415, "rouge_l": 0.188936, "cider": 0.111388}, 5e-7),
        (
            "original",
            5961,
            {"bleu4": 0.01273963069729889, "meteor": 0.15028136259787567, "rouge_l": 0.188936151728319,
             "cider": 0.08501660164156298},
            1e-9,
        ),
    ],
)  # fmt: skip
def test_published_predictions_give_the_known_scores(
    protocol: str, samples: int, wanted: dict[str, float], tolerance: float
) -> None:
    """SPEC's two protocols to the digits known, the original recipe to the digits that its authors published."""
    rows = read_predictions(PEER)
    rows = one_answer_each(rows) if protocol == "grouped" else rows
    report = score_predictions(rows, protocol, metrics=list(wanted))
    assert (report.num_samples, report.num_references) == (samples, 5961)
    for name, value in wanted.items():
        assert report.metrics[name].value == pytest.approx(value, abs=tolerance), name


@needs_java
@needs_wordnet
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_signatures_say_tokens_protocol_and_version(protocol: str) -> None:
    """Like sacrebleu's: two scores with one signature and one text can be compared."""
    rows = [
        {"image_path": "a", "original_query": str(i), "prediction": "a box", "reference": f"a box {i}"} for i in (0, 1)
    ]
    report = score_predictions(rows, protocol, metrics=["bleu4", "meteor", "rouge_l", "cider"])
    for name, result in report.metrics.items():
        fields = dict(field.split(":") for field in (result.signature or "").split("|"))
        assert {"nrefs", "tok", "protocol", "version"} <= fields.keys(), name
        assert (fields["nrefs"], fields["protocol"], fields["version"]) == ("1", protocol, result.version)
    tokens = {
        name: dict(f.split(":") for f in (r.signature or "").split("|"))["tok"] for name, r in report.metrics.items()
    }
    ptb = "split" if protocol == "original" else "ptb-3.4.1"
    bleu = "split" if protocol == "original" else "13a"
    assert tokens == {"bleu4": bleu, "meteor": ptb, "rouge_l": "rouge-score", "cider": ptb}


@needs_peer
def test_published_file_is_read_to_the_character() -> None:
    rows = read_predictions(PEER)
    with PEER.open(newline="", encoding="utf-8") as stream:
        assert rows == list(csv.DictReader(stream))
    assert sum(row["reference"] == "nan" for row in rows) == 3
