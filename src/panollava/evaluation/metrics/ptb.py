"""PTB tokens of captions, as COCO-caption makes them: Stanford's tokenizer, lower case, punctuation left out.

Takes captions as text, one line each after white space is collapsed, and returns for each a string of tokens joined by
single blanks. The jar is the one that pycocoevalcap ships. One Java start serves any number of captions (0.2 s to
start, 25,000 captions a second), so `PtbTokens` collects what it has not seen yet and asks once.

The tokenizer looks at the line behind a caption to decide whether a full stop at its end belongs to an abbreviation:
"to door A." has the token `a.` before a line in lower case and `a` before one that begins a sentence, "no." another one
before a number. So a line that begins no sentence is sent after each caption: its tokens are its own, whatever is
scored with it and in whatever order. pycocoevalcap, which sends all captions in one go, gives a caption these tokens
where its neighbour begins no sentence and no number.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from panollava.errors import EvaluationError
from panollava.evaluation.metrics.java import need_java
from panollava.evaluation.metrics.result import MetricUnavailable

JAR = "stanford-corenlp-3.4.1.jar"
SIGNATURE = "tok:ptb-3.4.1|captions:apart"
_BETWEEN = "x"  # a line that begins no sentence
_TIMEOUT_S = 600
# COCO-caption drops these tokens after tokenization (pycocoevalcap.tokenizer.ptbtokenizer, compared in a test).
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


def coco_folder() -> Path:
    """Folder of the installed pycocoevalcap, found without importing it."""
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise MetricUnavailable("pycocoevalcap not installed: pip install pycocoevalcap==1.2")
    return Path(next(iter(spec.submodule_search_locations)))


def tokenize_lines(lines: Sequence[str]) -> list[str]:
    """PTB tokens of each line, in order.

    Raises MetricUnavailable without Java or the jar, EvaluationError when the tokenizer fails or returns
    another number of lines: every later caption would silently get its neighbour's tokens.
    """
    if not lines:
        return []
    if any("\n" in line for line in lines):
        raise ValueError("tokenize_lines expects one line per caption; collapse white space first")
    jar = coco_folder() / "tokenizer" / JAR
    if not jar.is_file():
        raise MetricUnavailable(f"{jar} is missing: pip install --force-reinstall pycocoevalcap==1.2")
    java = need_java()
    with tempfile.TemporaryDirectory(prefix="panollava-ptb-") as folder:
        captions = Path(folder) / "captions.txt"
        apart = "".join(f"{line}\n{_BETWEEN}\n" for line in lines)
        captions.write_text(apart, encoding="utf-8", newline="\n")
        command = [
            java,
            "-XX:TieredStopAtLevel=1",  # short run: the optimizing compiler never pays here
            "-XX:+UseSerialGC",
            "-Dfile.encoding=UTF-8",  # Java < 18 follows the locale, and would turn Korean into ? under LC_ALL=C
            "-cp",
            str(jar),
            "edu.stanford.nlp.process.PTBTokenizer",
            "-preserveLines",
            "-lowerCase",
            str(captions),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise EvaluationError(f"The PTB tokenizer did not end within {_TIMEOUT_S} s.") from error
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip()[-500:]
        raise EvaluationError(f"The PTB tokenizer failed with exit code {done.returncode}: {tail}")
    found = done.stdout.decode("utf-8").split("\n")
    if found and not found[-1]:
        found.pop()  # the newline that ends the last line
    if len(found) != 2 * len(lines) or set(found[1::2]) - {_BETWEEN}:
        raise EvaluationError(
            f"The PTB tokenizer returned {len(found)} lines for {2 * len(lines)}, or moved them: no score can be right."
        )
    return [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATION) for line in found[::2]]


class PtbTokens:
    """PTB tokens by caption; captions asked for together are tokenized by one Java process."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}

    def add(self, captions: Iterable[str]) -> None:
        """Tokenize every caption that was not seen before."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._tokens]
        self._tokens.update(zip(new, tokenize_lines(new), strict=True))

    def __getitem__(self, caption: str) -> str:
        return self._tokens[caption]
