"""Generate the caption queries and references of a synthetic scene.

Every answer is in the picture. An answer names the place first and the thing after it ("behind you is a red box"),
so that a model knows where to look when it comes to say what is there. References of one query differ in their
opening words only.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from panollava.data.details import NO_DETAILS, Details
from panollava.data.prompting import prompt_of
from panollava.data.synthetic.scenes import PLACES, Scene, Solid

Kind = Literal[
    "look", "colour", "where", "count", "ground", "sky", "describe", "yes_no", "choice", "number", "direction"
]

PLACE_WORDS = {
    "front": "in front of you",
    "right": "to your right",
    "behind": "behind you",
    "left": "to your left",
    "above": "above you",
}
SKY_WORDS = {"day": "bright by day", "dusk": "orange at dusk", "night": "dark at night"}
GROUND_WORDS = {"grass": "covered with grass", "sand": "covered with sand", "stone": "paved with stone"}
NUMBERS = ("no", "one", "two", "three", "four", "five")
OPENINGS = ("", "here, ", "as i see it, ")
DESCRIBE_QUERY = "describe the panorama."


@dataclass(frozen=True)
class DrawnQuestion:
    """A query about a scene and its reference answers.

    `kind` says what it asks for, `details` what its row holds besides.
    """

    kind: Kind
    query: str
    references: tuple[str, ...]
    details: Details = NO_DETAILS

    @property
    def prompt(self) -> str:
        return prompt_of(self.query, self.details)


def thing(solid: Solid) -> str:
    return f"a {solid.colour} {solid.shape}"


def questions(scene: Scene) -> list[DrawnQuestion]:
    """Every question whose answer the scene settles, always in the same order.

    A place is asked only of a colour and shape that occur once.
    """
    asked: list[tuple[Kind, str, str]] = []
    for place, words in PLACE_WORDS.items():
        solid = scene.at(place)
        answer = f"{words} is {thing(solid) if solid else 'nothing'}"
        asked.append(("look", f"what is {from_here(words)}?", answer))
    things = Counter(thing(solid) for solid in scene.solids)
    for solid in scene.solids:
        words, name = PLACE_WORDS[solid.place], f"the {solid.colour} {solid.shape}"
        query = f"what colour is the thing {from_here(words)}?"
        asked.append(("colour", query, f"the thing {words} is {solid.colour}"))
        if things[thing(solid)] == 1:
            asked.append(("where", f"where is {name}?", f"{name} is {words}"))
    full = [place for place in PLACES if scene.at(place)]
    listed = ", ".join(PLACE_WORDS[place] for place in full)
    noun = "thing" if len(full) == 1 else "things"
    asked.append(("count", "how many things are around me?", f"{listed}: {NUMBERS[len(full)]} {noun}"))
    asked.append(("ground", "what am i standing on?", f"the ground is {GROUND_WORDS[scene.ground]}"))
    asked.append(("sky", "what does the sky look like?", f"the sky is {SKY_WORDS[scene.sky]}"))
    asked.append(("describe", DESCRIBE_QUERY, _description(scene)))
    return [DrawnQuestion(kind, query, with_openings(answer)) for kind, query, answer in asked]


def from_here(words: str) -> str:
    """A place in the words of the one who asks."""
    return words.replace("your", "my").replace("you", "me")


def _description(scene: Scene) -> str:
    parts = [f"the sky is {SKY_WORDS[scene.sky]}", f"the ground is {GROUND_WORDS[scene.ground]}"]
    parts += [f"{PLACE_WORDS[solid.place]} is {thing(solid)}" for solid in scene.solids]
    return ", ".join(parts)


def with_openings(answer: str) -> tuple[str, ...]:
    return tuple(f"{opening}{answer}." for opening in OPENINGS)


def group_of(question: DrawnQuestion) -> int:
    """Which third of the training questions: 0 descriptions, 1 relations of colours, shapes and places, 2 others."""
    return 0 if question.kind == "describe" else 1 if question.kind in ("colour", "where") else 2


def draw_questions(rng: np.random.Generator, scene: Scene, count: int) -> list[DrawnQuestion]:
    """Draw `count` questions for training, repeats allowed.

    A third describe the scene, a third relate colours, shapes and places, a third are the others: relations and
    descriptions exercise everything that a picture holds, single looks only a fifth of it.
    """
    every = questions(scene)
    groups = [[question for question in every if group_of(question) == group] for group in range(3)]
    drawn = []
    for _ in range(count):
        group = groups[int(rng.integers(3))]
        drawn.append(group[int(rng.integers(len(group)))])
    return drawn


_PLACES_BY_WORDS = {words: place for place, words in PLACE_WORDS.items()}
_PAIR = re.compile(rf"({'|'.join(PLACE_WORDS.values())}) is a (\w+ \w+)")


def places_and_things(description: str) -> set[tuple[str, str]]:
    """The (place, "colour shape") pairs that a description names; empty when it names none."""
    return {(_PLACES_BY_WORDS[words], what) for words, what in _PAIR.findall(description)}
