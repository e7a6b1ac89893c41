"""Assign each query a type, by which scores are broken down.

The types are the synthetic set's kinds where every query is one of them; else the text itself where few are distinct
(QuIC-360 has 33 queries), else the first two words. At most `MOST` types, the rare ones pooled.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from panollava.data.synthetic.captions import DESCRIBE_QUERY, Kind

MOST = 16
FEW_DISTINCT = 40
NO_QUERY = "(no query)"
NO_CATEGORY = "(no category)"
_PLACE = r"(in front of me|to my right|behind me|to my left|above me)"
_SYNTHETIC: dict[Kind, re.Pattern[str]] = {
    "look": re.compile(rf"what is {_PLACE}\?"),
    "colour": re.compile(rf"what colour is the thing {_PLACE}\?"),
    "where": re.compile(r"where is the \w+ \w+\?"),
    "count": re.compile(r"how many things are around me\?"),
    "ground": re.compile(r"what am i standing on\?"),
    "sky": re.compile(r"what does the sky look like\?"),
    "describe": re.compile(re.escape(DESCRIBE_QUERY)),
}


def types_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """What each row counts under: its category where any row names one, else the type of its query."""
    categories = [row.get("category", "") for row in rows]
    if any(categories):
        return [one or NO_CATEGORY for one in categories]
    return query_types([row.get("original_query", "") for row in rows])


def query_types(queries: Sequence[str]) -> list[str]:
    """The type of each query."""
    texts = [" ".join(query.split()) for query in queries]
    kinds = [_synthetic_kind(text) for text in texts]
    if texts and all(kinds):
        return [str(kind) for kind in kinds]
    few = len(set(texts)) <= FEW_DISTINCT
    found = [(text if few else " ".join(text.casefold().split()[:2])) or NO_QUERY for text in texts]
    counts = Counter(found)
    if len(counts) <= MOST:
        return found
    kept = {name for name, _ in counts.most_common(MOST - 1)}
    others = f"({len(counts) - len(kept)} others)"
    return [name if name in kept else others for name in found]


def _synthetic_kind(query: str) -> Kind | None:
    return next((kind for kind, pattern in _SYNTHETIC.items() if pattern.fullmatch(query)), None)
