"""The synthetic data set's words for places, turned with the panorama.

Rewrites a query or an answer for a panorama turned by a number of quarter turns. One turn brings into the middle what
was to the right: "to your right" becomes "in front of you". What is above stays above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from panollava.data.synthetic.captions import DESCRIBE_QUERY, OPENINGS, PLACE_WORDS
from panollava.data.synthetic.scenes import COLOURS, SHAPES

_ROUND = ("front", "right", "behind", "left")
_WORDS = {
    person: {place: words.replace("your", my).replace("you", me) for place, words in PLACE_WORDS.items()}
    for person, (my, me) in {"you": ("your", "you"), "me": ("my", "me")}.items()
}
_PATTERNS = {person: re.compile("|".join(map(re.escape, words.values()))) for person, words in _WORDS.items()}
_PLACE_OF = {person: {words: place for place, words in by.items()} for person, by in _WORDS.items()}
_QUERY = re.compile(
    rf"what is (?:{_PATTERNS['me'].pattern})\?|what colour is the thing (?:{_PATTERNS['me'].pattern})\?"
    rf"|where is the (?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})\?|how many things are around me\?"
    rf"|what am i standing on\?|what does the sky look like\?|{re.escape(DESCRIBE_QUERY)}"
)


def are_synthetic(queries: Iterable[str]) -> bool:
    """Whether every query is one that the synthetic data set asks."""
    return all(_QUERY.fullmatch(query) for query in queries)


def turned_query(query: str, quarter_turns: int) -> str:
    """The query ("to my right") that asks the turned panorama for the same thing."""
    return _turned(query, "me", quarter_turns)


def turned_answer(answer: str, quarter_turns: int) -> str:
    """The answer ("to your right") that says of the turned panorama what `answer` says."""
    return _turned(answer, "you", quarter_turns)


def statements(answer: str) -> tuple[str, ...]:
    """What an answer says, sorted: without opening words and without the order in which places are named.

    Two answers say the same exactly when their statements are equal. Places are listed in the order front, right, …
    which turning changes.
    """
    text = " ".join(answer.split()).removesuffix(".")
    for opening in OPENINGS:
        if opening and text.startswith(opening):
            text = text.removeprefix(opening)
    places, colon, count = text.partition(": ")  # "in front of you, behind you: two things"
    return tuple(sorted(places.split(", ")) + ([count] if colon else []))


def _turned(text: str, person: str, quarter_turns: int) -> str:
    def other(match: re.Match[str]) -> str:
        place = _PLACE_OF[person][match[0]]
        if place in _ROUND:
            place = _ROUND[(_ROUND.index(place) - quarter_turns) % len(_ROUND)]
        return _WORDS[person][place]

    return _PATTERNS[person].sub(other, text)
