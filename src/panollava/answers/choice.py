"""Which option a text chooses: by its letter, else by its words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from panollava.answers.letters import bare_letter, place_of
from panollava.answers.part import plain

Span = tuple[int, int]
_NOT = r"(?:not|\w+n'?t|neither|nor|never|rather than|instead of|except|excluding|without)"
_DENIED_BEFORE = re.compile(
    rf"\b{_NOT}\s+(?:(?:the|an?|option|choice|answer|letter|in|at|on|to|is|it|be)\s+)*[\s(\[\"']*$", re.I
)
_DENIED_AFTER = re.compile(
    r"^[\s)\].:\"']*(?:is|was|are|seems|looks|can ?not be|can'?t be)?\s*(?:(?:definitely|clearly|also)\s+)?"
    r"(?:wrong|incorrect|false|excluded|ruled out|eliminated"
    r"|(?:not|n'?t|isn'?t)\s+(?:correct|right|true|the\s+answer|it\b))",
    re.I,
)
# How an answer begins with its letter: "B. dog", "(b) dog", "B) dog", "B: dog", "B - dog", "B, because", "b) dog".
_AT_HEAD = re.compile(
    r"[\"'\[{<\s]*(?:\(\s*([A-Za-z])\s*\)|([A-Z])\s*[)\]}>]*\s*(?:[.:),;\]]|-\s|\n)|([a-z])\s*[)\]]|([a-z])[.,;:](?:\s|$))"
)
_GOES_ON = re.compile(r"[\s,;/&)\].:]*(?:(?:and|or)\s+)?[(\[]?\s*([A-Z])(?![A-Za-z0-9'])")
_NAMED = re.compile(r"\b(?:option|choice|letter|alternative)s?\s*[:#]?\s*[\"'(\[]*([A-Za-z])(?![A-Za-z0-9'])", re.I)
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_LONE = re.compile(r"(?<![A-Za-z0-9'])([A-Z])(?![A-Za-z0-9'])")
# "A" is an article and "I" a pronoun as well: they are letters before the end, a mark, a reason, or another script.
_WORDS_AS_WELL = "AI"
_LETTER_ENDS = re.compile(
    r"[\"')\]]*\s*(?:$|[.,;:!?)\]\n/&+]|-\s|\(|[^\x00-\x7f]|(?:because|since|as|is|was|and|or)\b)"
)


def read_choice(text: str, options: Sequence[str]) -> int | None:
    """The place of the option that a plain text chooses, from 0; None where it chooses none, or several.

    >>> [read_choice(text, ["cat", "dog"]) for text in ("(b)", "The dog.", "A or B", "not A but B", "a dog")]
    [1, 1, None, 1, 1]
    """
    if (alone := bare_letter(text)) is not None:
        return _within(alone, options)
    said = words_of(text)
    if same := [place for place, option in enumerate(options) if said and words_of(option) == said]:
        return same[0] if len(same) == 1 else None
    named = _by_letters(text, options)
    chosen = named or _by_words(f" {said} ", options)
    return chosen.pop() if len(chosen) == 1 else None


def words_of(text: str) -> str:
    """A text as words alone: no case, no marks but a number's, no article at its head.

    >>> words_of("The Front-Left."), words_of(" 1.5 m "), words_of("trash_can")
    ('front left', '1.5 m', 'trash can')
    """
    folded = plain(text).casefold().replace("_", " ").replace("'", "")
    folded = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", folded)
    folded = re.sub(r"(?<!\d)\.|\.(?!\d)|(?<![\s(\[])-|-(?!\d)|[^\w\s.-]", " ", f" {folded} ")
    words = folded.split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words)


def _by_letters(text: str, options: Sequence[str]) -> set[int]:
    """The options whose letters are named and not denied."""
    if head := _AT_HEAD.match(text):
        name = next(group for group in head.groups() if group)
        first = _within(name.upper(), options)
        follows = _GOES_ON.match(text, head.end())
        another = follows is not None and _is_letter(text, follows)
        if first is not None and not another and not _denied(text, head.span()):
            return {first}
    taken = list(_spans_of_longer_options(text, options))
    found = set()
    for pattern in (_NAMED, _BRACKETED, _LONE):
        for hit in pattern.finditer(text):
            within_words = any(begin <= hit.start(1) and hit.end(1) <= end for begin, end in taken)
            if within_words or _denied(text, hit.span(1)) or (pattern is _LONE and not _is_letter(text, hit)):
                continue
            found.add(_within(hit[1].upper(), options))
    return {place for place in found if place is not None}


def _is_letter(text: str, hit: re.Match[str]) -> bool:
    """Whether a single capital is an option's letter, not an article or a pronoun."""
    return hit[1] not in _WORDS_AS_WELL or _LETTER_ENDS.match(text, hit.end(1)) is not None


def _denied(text: str, span: Span) -> bool:
    return bool(_DENIED_BEFORE.search(text[: span[0]]) or _DENIED_AFTER.match(text[span[1] :]))


def _within(name: str, options: Sequence[str]) -> int | None:
    place = place_of(name)
    return place if place < len(options) else None


def _spans_of_longer_options(text: str, options: Sequence[str]) -> Iterator[Span]:
    """Where options of several words occur as they are written: a letter inside them is theirs ("Tree B")."""
    for option in options:
        if len(option.split()) > 1:
            yield from (hit.span() for hit in re.finditer(re.escape(plain(option)), text, re.I))


def _by_words(said: str, options: Sequence[str]) -> set[int]:
    """The options whose words are named and not denied; words inside those of a longer option are the longer one's."""
    hits = [(span, place) for place, option in enumerate(options) for span in _occurrences(said, words_of(option))]
    spans = [span for span, _ in hits]
    return {
        place
        for (first, last), place in hits
        if not any(b <= first and last <= e and e - b > last - first for b, e in spans)
        and not _denied(said, (first, last))
    }


def _occurrences(said: str, wanted: str) -> Iterator[Span]:
    """Where `wanted` occurs as whole words in `said`, which begins and ends with a blank."""
    place = said.find(wanted) if wanted else -1
    while place >= 0:
        end = place + len(wanted)
        before, after = said[place - 1], said[end]
        number_before = before in ".-" and wanted[0].isdigit()
        number_after = after == "." and wanted[-1].isdigit()
        script = _script(wanted[0])
        left = script in ("words", "hangul") and _script(before) == script
        # Hangul goes on behind a word (particles); Han, Kana and Thai have no blanks at all.
        right = _script(wanted[-1]) == "words" == _script(after)
        if not (left or right or number_before or number_after):
            yield place, end
        place = said.find(wanted, place + 1)


def _script(sign: str) -> str:
    if "\uac00" <= sign <= "\ud7a3":
        return "hangul"
    if "\u3040" <= sign <= "\u30ff" or "\u3400" <= sign <= "\u9fff" or "\u0e00" <= sign <= "\u0e7f":
        return "unspaced"
    return "words" if sign.isalnum() else ""
