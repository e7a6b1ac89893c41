"""WordNet 3.0 for METEOR: NLTK's own corpus where it is installed, else Debian's packages, completed once.

Debian's `wordnet-base` and `wordnet-sense-index` hold everything that NLTK's reader opens but `lexnames`, a table
of 45 lexicographer files. NLTK refuses links that leave a data folder, so the files are copied (36 MB) to the
user's cache folder, with the table beside them. Both sources give the same scores, bit for bit.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from panollava.evaluation.metrics.java import cache_folder
from panollava.evaluation.metrics.result import MetricUnavailable

DEBIAN_FOLDER = Path("/usr/share/wordnet")
REMEDY = "run the command that panollava check-env prints"
# What nltk.corpus.reader.wordnet.WordNetCorpusReader opens, without lexnames.
FILES = (
    "cntlist.rev",
    "index.sense",
    *(f"{kind}.{part}" for kind in ("index", "data") for part in ("adj", "adv", "noun", "verb")),
    *(f"{part}.exc" for part in ("adj", "adv", "noun", "verb")),
)
# Lexicographer files of WordNet in their numerical order with their category (1 noun, 2 verb, 3 adjective,
# 4 adverb), as the manual page lexnames(5WN) lists them.
_LEXICOGRAPHER_FILES = (
    ("adj", "all pert", 3),
    ("adv", "all", 4),
    (
        "noun",
        "Tops act animal artifact attribute body cognition communication event feeling food group location motive "
        "object person phenomenon plant possession process quantity relation shape state substance time",
        1,
    ),
    (
        "verb",
        "body change cognition communication competition consumption contact creation emotion motion perception "
        "possession social stative weather",
        2,
    ),
    ("adj", "ppl", 3),
)


def lexnames() -> str:
    """The table that Debian's packages lack: number, lexicographer file and category, one line each."""
    names = [(f"{part}.{name}", kind) for part, group, kind in _LEXICOGRAPHER_FILES for name in group.split()]
    return "".join(f"{number:02d}\t{name}\t{kind}\n" for number, (name, kind) in enumerate(names))


def wordnet_source() -> str | None:
    """Where WordNet would come from ("nltk_data: PATH", "Debian: PATH"), or None. Reads no file's content."""
    if folder := _nltk_corpus():
        return f"nltk_data: {folder}"
    if not missing_debian_files():
        return f"Debian: {DEBIAN_FOLDER}"
    return None


def missing_debian_files() -> list[str]:
    """Files that Debian's two packages bring and that are not there."""
    return [name for name in FILES if not (DEBIAN_FOLDER / name).is_file()]


@lru_cache(maxsize=1)
def load_wordnet() -> Any:
    """NLTK's reader of WordNet 3.0 (1 to 2 s, once a process). Raises MetricUnavailable with the remedy."""
    if corpus := _nltk_corpus():
        try:
            reader = _open(corpus)
        except (LookupError, OSError) as error:
            raise MetricUnavailable(f"NLTK cannot read {corpus}: {str(error).strip()[:300]}") from error
    else:
        if missing := missing_debian_files():
            raise MetricUnavailable(
                f"WordNet 3.0 not installed ({DEBIAN_FOLDER} lacks {len(missing)} of {len(FILES)} files): {REMEDY}"
            )
        reader = _open(_debian_copy())
    version = reader.get_version()
    if version != "3.0":
        raise MetricUnavailable(f"METEOR needs WordNet 3.0, found {version}: {REMEDY}")
    return reader


class Synonyms:
    """A WordNet that remembers: for NLTK's METEOR, which reads of a word's synsets nothing but their lemmas' names.

    A word's lemmas are given as those of one synset, each name once.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.synsets = cache(self._synsets)

    def _synsets(self, word: str) -> list[_Synset]:
        lemmas = {lemma.name(): lemma for synset in self._reader.synsets(word) for lemma in synset.lemmas()}
        return [_Synset(list(lemmas.values()))]


class _Synset:
    def __init__(self, lemmas: list[Any]) -> None:
        self._lemmas = lemmas

    def lemmas(self) -> list[Any]:
        return self._lemmas


def _nltk_corpus() -> Path | None:
    """NLTK's own WordNet corpus (folder or zip) on NLTK's search path, found without importing NLTK."""
    folders = [part for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    folders += [str(Path.home() / "nltk_data"), str(cache_folder() / "nltk_data")]
    folders += [f"{base}/nltk_data" for base in (sys.prefix, f"{sys.prefix}/share", f"{sys.prefix}/lib")]
    folders += [f"/usr/{base}/nltk_data" for base in ("share", "local/share", "lib", "local/lib")]
    for folder in folders:
        for name in ("wordnet", "wordnet.zip"):
            corpus = Path(folder) / "corpora" / name
            if corpus.is_file() or (corpus / "data.noun").is_file():
                return corpus
    return None


def _debian_copy() -> Path:
    """A complete copy of Debian's WordNet in the cache folder, made in one step, keyed by the files' sizes."""
    sizes = sum((DEBIAN_FOLDER / name).stat().st_size for name in FILES)
    target = cache_folder() / "wordnet" / f"debian-3.0-{sizes}" / "corpora" / "wordnet"
    if (target / "lexnames").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".wordnet-", dir=target.parent))
    try:
        for name in FILES:
            shutil.copyfile(DEBIAN_FOLDER / name, partial / name)
        (partial / "lexnames").write_text(lexnames(), encoding="ascii", newline="\n")
        for path in (target.parents[1], target.parent, partial, *partial.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)  # NLTK refuses what others may write
        try:
            partial.rename(target)
        except OSError:
            if not (target / "lexnames").is_file():  # else another process was first: its copy is as good
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _open(corpus: Path) -> Any:
    """NLTK's reader on `.../corpora/wordnet` or `.../corpora/wordnet.zip`."""
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class EnglishWordNet(WordNetCorpusReader):
        """Without the map of sense keys to WordNet 3.0, half of the start, which other languages alone need."""

        def map_wn(self, version: str = "wordnet") -> None:
            return None

    root = str(corpus.parents[1])
    if root not in nltk.data.path:
        nltk.data.path.append(root)  # NLTK opens nothing outside its data folders
    inside = "corpora/wordnet.zip/wordnet/" if corpus.suffix == ".zip" else "corpora/wordnet"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions are not available")
        return EnglishWordNet(nltk.data.find(inside, [root]), None)
