"""Generate questions about a synthetic scene whose answers are right or wrong.

An answer says what is seen before it says what follows ("behind you is a red box: yes."), as captions name the place
before the thing; readers of answers take the yes, the option's words or the number. Guessing is not learnt: half of the
yes/no questions are about an empty place, and the right option may have any letter. Traded away is what the miniature
models do not learn in EXP2's time: to compare what a question names with what is seen, and to name an option's letter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from panollava.data.details import Details
from panollava.data.prompting import instruction_of
from panollava.data.synthetic.captions import NUMBERS, PLACE_WORDS, DrawnQuestion, from_here, thing, with_openings
from panollava.data.synthetic.scenes import COLOURS, PLACES, SHAPES, Scene

EXACT_TYPES = ("yes_no", "choice", "number", "direction")
_OPTIONS = 4


def exact_questions(rng: np.random.Generator, scene: Scene, kind: str) -> list[DrawnQuestion]:
    """Every question of a kind about a scene; none where the scene settles none."""
    return _ASKED[kind](rng, scene)


def draw_typed(rng: np.random.Generator, scene: Scene, types: Sequence[str], count: int) -> list[DrawnQuestion]:
    """`count` questions of kinds drawn from `types`, repeats allowed; "text" is no kind of this module.

    Of kinds that the scene settles: two equal things have no direction of their own. None where it settles none.
    """
    drawn: list[DrawnQuestion] = []
    open_ = list(types)
    while open_ and len(drawn) < count:
        kind = open_[int(rng.integers(len(open_)))]
        if found := exact_questions(rng, scene, kind):
            drawn.append(found[int(rng.integers(len(found)))])
        else:
            open_.remove(kind)
    return drawn


def _yes_no(rng: np.random.Generator, scene: Scene) -> list[DrawnQuestion]:
    """Is there anything: of as many places that hold something as of places that hold nothing."""
    places = [[place for place in PLACES if (scene.at(place) is not None) == full] for full in (True, False)]
    asked = []
    for place in (place for found in places for place in rng.permutation(found)[: min(map(len, places))]):
        solid, words = scene.at(place), PLACE_WORDS[place]
        answer = f"{words} is {thing(solid)}: yes" if solid else f"{words} is nothing: no"
        asked.append(_question("yes_no", f"is there anything {from_here(words)}?", answer))
    return asked


def _choice(rng: np.random.Generator, scene: Scene) -> list[DrawnQuestion]:
    """Of each place that holds something: which of four things of different colours? The answer says its words."""
    asked = []
    for solid in scene.solids:
        others = [colour for colour in COLOURS if colour != solid.colour]
        colours = [solid.colour, *rng.choice(others, _OPTIONS - 1, replace=False).tolist()]
        things = [f"{solid.colour} {solid.shape}"] + [f"{colour} {rng.choice(SHAPES)}" for colour in colours[1:]]
        options = tuple(things[place] for place in rng.permutation(_OPTIONS))
        words = PLACE_WORDS[solid.place]
        asked.append(_question("choice", f"which thing is {from_here(words)}?", f"{words} is {thing(solid)}", options))
    return asked


def _number(rng: np.random.Generator, scene: Scene) -> list[DrawnQuestion]:
    full = [place for place in PLACES if scene.at(place)]
    answer = f"{', '.join(PLACE_WORDS[place] for place in full)}: {NUMBERS[len(full)]}"
    return [_question("number", "how many things do i see?", answer)]


def _direction(rng: np.random.Generator, scene: Scene) -> list[DrawnQuestion]:
    """Of each thing that occurs only once."""
    things = Counter(thing(solid) for solid in scene.solids)
    return [
        _question(
            "direction",
            f"in which direction is the {solid.colour} {solid.shape}?",
            f"the {solid.colour} {solid.shape} is {PLACE_WORDS[solid.place]}",
        )
        for solid in scene.solids
        if things[thing(solid)] == 1
    ]


def _question(kind: str, query: str, answer: str, options: tuple[str, ...] = ()) -> DrawnQuestion:
    details = Details(answer_type=kind, options=options, category=kind)
    return DrawnQuestion(kind, query, with_openings(answer), details)  # type: ignore[arg-type]


def as_prompted(question: DrawnQuestion) -> DrawnQuestion:
    """The question with what the prompt says of its answer, as preparation adds it."""
    instruction = instruction_of(question.references[0], question.details)
    return replace(question, details=replace(question.details, answer_instruction=instruction))


_ASKED: dict[str, Callable[[np.random.Generator, Scene], list[DrawnQuestion]]] = {
    "yes_no": _yes_no,
    "choice": _choice,
    "number": _number,
    "direction": _direction,
}
