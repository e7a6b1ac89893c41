"""The part of a text that answers: thinking left out, tags and boxes opened, characters made plain.

The part of what a model wrote that is its answer, "" where there is none (thinking that never ended).
"""

from __future__ import annotations

import re
import unicodedata

_THINKING = r"think|thinking|thought|thoughts|reason|reasoning|analysis|reflection|scratchpad|seed:think"
# A pair of marks around thinking: HTML-like tags, and those of model families that write their own.
_PAIRS = (
    (rf"<\s*({_THINKING})(?:\s[^<>]*)?>", rf"<\s*/\s*({_THINKING})\s*>"),
    (r"◁think▷", r"◁/think▷"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|channel\|>\s*analysis\s*<\|message\|>", r"<\|end\|>"),
)
_THOUGHTS = tuple(
    tuple(re.compile(pattern, re.S | re.I) for pattern in (f"{begin}.*?{end}", f"^.*{end}", f"{begin}.*$"))
    for begin, end in _PAIRS
)
_ANSWER = re.compile(r"<\s*answer(?:\s[^<>]*)?>", re.I)
_ANSWER_END = re.compile(r"<\s*/\s*answer\s*>", re.I)
_GLM_BOX = re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|$)", re.S)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_LATEX_SIGNS = (
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\\deg\b"), "°"),
    (re.compile(r"\\[,;:! ]|\\quad|(?<!\\)\$"), " "),
)
_CUE = re.compile(
    r"(?:^|(?<=[\s.,;:!?*(]))(?:(?:the|my)\s+)?(?:(?:final|correct|right|best)\s+)*(?:answer|choice|option)\s*"
    r"(?:[*_]*\s*[:=][*_]*|\bis\b\s*:?|\bwould\s+be\b|\bshould\s+be\b)",
    re.I,
)
_ABSTAINS = re.compile(
    r"(?:unknown|unclear|undetermin\w+|indeterminate|impossible|n/a|none|nothing)(?=\s*(?:[.,;:!]|$))"
    r"|(?:can|could)(?: ?not|n't|'t)\b|not\s+(?:known|visible|clear|possible|given|sure|certain|available|shown)\b",
    re.I,
)
_SIGNS = {
    "−": "-", "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "﹣": "-",
    "’": "'", "‘": "'", "ʼ": "'", "′": "'", "“": '"', "”": '"', "″": '"', "º": "°", "˚": "°",
}  # fmt: skip
_VULGAR = {"½": ".5", "¼": ".25", "¾": ".75", "⅓": ".333333333", "⅔": ".666666667", "⅛": ".125"}


def answer_part(text: str) -> str:
    r"""What a text gives as its answer, with plain characters (`plain`).

    Thinking is left out, also where only its end or only its beginning is there. Of what is left, the last
    `<answer>…</answer>` counts where there is one, and in that the last `\boxed{…}`.

    >>> answer_part("<think>Two? No.</think>It is <answer> 3 </answer>.")
    '3'
    >>> answer_part(r"So the answer is \boxed{\text{B}}.")
    'B'
    """
    text = without_thinking(text)
    if answers := list(_ANSWER.finditer(text)):
        inside = text[answers[-1].end() :]
        end = _ANSWER_END.search(inside)
        text = inside[: end.start()] if end else inside
    if boxes := _GLM_BOX.findall(text):
        text = boxes[-1]
    if boxed := list(_BOXED.finditer(text)):
        text = _in_braces(text[boxed[-1].end() :])
    while (opened := _LATEX_TEXT.sub(r"\1", text)) != text:
        text = opened
    for pattern, sign in _LATEX_SIGNS:
        text = pattern.sub(sign, text)
    return plain(text)


def without_thinking(text: str) -> str:
    """A text without its thinking; of thinking that never ends, only an answer's tag in it is left."""
    for whole, ended, begun in _THOUGHTS:
        text = whole.sub(" ", text)
        text = ended.sub(" ", text)  # the prompt began it
        if (open_ := begun.search(text)) is not None:
            tag = _ANSWER.search(text, open_.start())
            text = text[: open_.start()] + (text[tag.start() :] if tag else "")
    return text


def after_cue(text: str) -> str | None:
    """The text after the last "the answer is" or "Answer:" of a text; None where it has no such phrase.

    >>> after_cue("A is close. The answer is (B), I think."), after_cue("a red box")
    ('(B), I think.', None)
    """
    cues = list(_CUE.finditer(text))
    rest = text[cues[-1].end() :].strip() if cues else ""
    return rest or None


def abstains(text: str) -> bool:
    """Whether the text after "the answer is" says that there is none ("unknown", "cannot be determined")."""
    return _ABSTAINS.match(text) is not None


def plain(text: str) -> str:
    """Characters of other widths, dashes, quotes and fractions as ASCII has them; marks of emphasis left out."""
    text = re.sub(r"(\d?)([½¼¾⅓⅔⅛])", lambda found: (found[1] or "0") + _VULGAR[found[2]], text)
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f'’_](?=\d{3}(?!\d))", "", text)  # groups of thousands
    text = "".join(_SIGNS.get(character, character) for character in unicodedata.normalize("NFKC", text))
    text = "".join(_SIGNS.get(character, character) for character in text)
    return re.sub(r"\*\*|__|`|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)", "", text).strip()


def _in_braces(text: str) -> str:
    """Up to the brace that closes the one before `text`; all of it where none does."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return text[:place]
    return text
