"""What counts as an answer in free text, kind by kind, and what it scores. `None` is unreadable."""

from __future__ import annotations

import pytest

from panollava.answers.grading import Grade, Question, Tolerances, grade, read_truth
from panollava.answers.part import after_cue, answer_part

FOUR = ("cat", "dog", "red car", "none of these")


def said(text: str, options: tuple[str, ...]) -> str | None:
    found = grade(text, ["A"], Question("choice", options))
    assert found.readable or (found.score, found.accurate, found.said) == (0.0, False, "")
    return found.said if found.readable else None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("plain", "plain"),
        ("<think>a</think> b", "b"),
        ("<THINKING>\na\n</thinking>b <reasoning>c</reasoning>", "b"),
        ("a prompt began it </think> b", "b"),
        ("<think>it never ends", ""),
        ("<think>it never ends <answer>B</answer>", "B"),
        ("<think>is it <answer>A</answer>?</think><answer>B</answer>", "B"),
        ("<Reasoning>x</Reasoning><Answer> The pipe </Answer>", "The pipe"),
        ("<answer>A</answer> wait <answer>B</answer>", "B"),
        ("<answer>B", "B"),
        ("<answer></answer>", ""),
        ("<answer>\\boxed{B}</answer>", "B"),
        ("so $\\boxed{\\text{(C)}}$", "(C)"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{A} no, \\boxed{B}", "B"),
        ("\\boxed{90^\\circ}", "90°"),
        ("<|begin_of_box|>B<|end_of_box|>", "B"),
        ("◁think▷A◁/think▷B", "B"),
        ("<|channel|>analysis<|message|>A<|end|><answer>B</answer>", "B"),
        ("**B**", "B"),
        ("Ｂ（１２）−５", "B(12)-5"),
        ("2½ m", "2.5 m"),
        ("1\u202f200 m and 1\u00a02", "1200 m and 1 2"),
    ],
)  # fmt: skip
def test_the_part_that_answers(text: str, part: str) -> None:
    assert answer_part(text) == part


def test_what_stands_behind_the_words_that_announce_an_answer() -> None:
    assert after_cue("Final Answer: **C**") == "**C**"
    assert after_cue("The answer is A. No, the correct answer would be B") == "B"
    assert after_cue("The answer") is None and after_cue("the answering machine is on") is None


@pytest.mark.parametrize("text", [
    "B", "b", "(b)", "B.", "B)", "[B]", "'B'", "B!!", "**B**", "Ｂ", "（Ｂ）", "Answer: (b)", "Answer：B",
    "The answer is B.",
    "B. dog", "B.dog", "b) dog", "B: dog", "B - dog", "B\nbecause", "B, because A is further", "B) cat",
    "option B, dog",
    "I choose option b", "Option (B)", "so B", "not A but B", "It isn't A, it's B", "B, not A", "B (not A)",
    "I think it is B because A is wrong", "Option A is wrong. Option B is correct.", "정답은 B입니다", "答案：B",
    "<answer>B</answer>", "<think>A? C?</think>B", "unfinished A</think>B", "$\\boxed{\\text{(B)}}$",
    "The dog.", "a dog", "It is a DOG!", "dog, not the cat", "The answer is a dog", "not the cat but the dog",
    "the correct option is (B) dog",
])  # fmt: skip
def test_choices_that_are_read(text: str) -> None:
    assert said(text, FOUR) == "B"


@pytest.mark.parametrize("text", [
    "", "both", "A or B", "A and B", "A, B", "A/B", "A&B", "A) and B)", "(A)(B)", "Neither A nor B", "E", "Z.",
    "not A",
    "The answer is not A.", "cat or dog", "both the cat and the dog", "The dog is closer than the cat.", "dogs",
    "it's not the cat", "none of the above", "I", "A bird", "<answer></answer>", "<think>B", "I cannot tell", "?",
])  # fmt: skip
def test_choices_that_are_not_read(text: str) -> None:
    assert said(text, FOUR) is None


@pytest.mark.parametrize(
    ("options", "text", "letter"),
    [
        (FOUR, "A", "A"), (FOUR, "A.", "A"), (FOUR, "A is correct", "A"), (FOUR, "A cat", "A"),
        (FOUR, "A red car", "C"),
        (FOUR, "red-car", "C"), (FOUR, "None of these", "D"), (FOUR, "The answer is none of these.", "D"),
        (("front", "front left", "left"), "It is front-left.", "B"),
        (("front", "front left", "left"), "to the left", "C"),
        (("front", "front left", "left"), "front and left", None),
        (("Tree A", "Tree B"), "Tree B", "B"), (("Tree A", "Tree B"), "the tree B is closer", "B"),
        (("Tree A", "Tree B"), "Tree A and Tree B", None),
        (("visible", "not visible"), "It is not visible.", "B"), (("visible", "not visible"), "visible", "A"),
        (("1", "2", "10", "1.5", "-90"), "2", "B"), (("1", "2", "10", "1.5", "-90"), "about 1.5 m", "D"),
        (("1", "2", "10", "1.5", "-90"), "There are 10", "C"), (("1", "2", "10", "1.5", "-90"), "-90", "E"),
        (("1", "2"), "1.5", None),
        (("빨간 상자", "파란 공", "개"), "빨간 상자입니다", "A"), (("빨간 상자", "파란 공", "개"), "날개", None),
        (("狗", "猫"), "我认为是狗。", "A"), (("trash_can", "tv"), "the trash can", "A"), (("tv", "TV"), "tv", None),
    ],
)  # fmt: skip
def test_choices_by_their_words(options: tuple[str, ...], text: str, letter: str | None) -> None:
    assert said(text, options) == letter


def test_shuffled_options_are_read_as_shown_and_scored_as_they_are() -> None:
    question = Question("choice", ("cat", "dog", "car"), ("car", "cat", "dog"))
    assert grade("C", ["B"], question) == Grade(1.0, True, True, "B", "B")
    assert grade("B", ["B"], question).said == "A" and grade("dog", ["dog"], question).accurate


def test_a_choice_without_options_is_its_words() -> None:
    assert grade("The Pipe.", ["the pipe"], Question("choice")).accurate
    assert not grade("the pipe holder", ["the pipe"], Question("choice")).accurate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Yes", True), ("yes.", True), ("ＹＥＳ", True),
        ("No, there isn't", False), ("Yes, no doubt", True),
        ("True", True),
        ("false.", False), ("Y", True), ("n", False), ("There is no box", False), ("Yes or no? Yes.", True),
        ("yep", True),
        ("네", True), ("아니요, 없습니다", False),
        ("**Yes**", True), ("Answer: No", False), ("<think>yes</think>No", False),
        ("The answer is clear: yes", True), ("Yes, the answer is clear.", True), ("<Answer>no</Answer> yes", False),
        ("maybe", None), ("I know", None), ("yes/no", None), ("yes and no", None), ("nothing", None), ("네모", None),
        ("yesterday", None), ("not sure", None), ("", None), ("it is not true", None), ("No. 5", None),
    ],
)  # fmt: skip
def test_yes_and_no(text: str, value: bool | None) -> None:
    found = grade(text, ["yes"], Question("yes_no"))
    assert found.said == {True: "yes", False: "no", None: ""}[value] and found.readable == (value is not None)
    assert found.accurate == (value is True)


@pytest.mark.parametrize(
    ("text", "truth", "right"),
    [
        ("about 160 meters", "160 m", True), ("1,200 m", "1.2 km", True), ("1 200 m", "1.2 km", True),
        ("3.5 km", "3500 metres", True), ("525 ft", "160 m", True), ("16,000 cm", "160 m", True), ("６ｍ", "6 m", True),
        ("144 m", "160 m", True), ("143.9 m", "160 m", False), ("176 m", "160 m", True), ("177 m", "160 m", False),
        ("160 cm", "160 m", False), ("160", "160 m", True), ("160 km", "160", True), ("90°", "90 m", False),
        ("5 m²", "5 m", False), ("10 square meters", "10 m", False), ("two", "2", True), ("Twenty-one.", "21", True),
        ("twenty", "20", True), ("one hundred and sixty meters", "160 m", True), ("three", "2", False),
        ("2.1", "2", False), ("2 chairs", "2", True), ("22", "20", False), ("22", "20.5", True), ("0", "0", True),
        ("zero", "0", True),
        ("0.01 m", "0 m", False), ("-5", "-5", True), ("−5", "-5", True), ("minus five", "-5", True),
        ("5", "-5", False),
        ("half a meter", "0.5 m", True), ("1/2 m", "0.5 m", True), ("2½ m", "2.5 m", True), ("1,5 m", "1.5 m", True),
        ("1.000,5 m", "1000.5 m", True), ("6 ft 2 in", "1.88 m", True), ("1e3", "1000", True),
        ("1.2×10^3 m", "1200 m", True),
        ("5 to 10 meters", "5 m", True), ("3–4 m", "3 m", True), ("50%", "50 %", True), ("30 degrees", "30°", True),
        ("I see 2 boxes, 5 m away", "5 m", True), ("I see 2 boxes, 5 m away", "2", True), ("3개", "3", True),
        ("the one on the left is 3 m away", "3 m", True), ("the 2nd one: 3", "3", True),
        ("Answer: 4, not 5", "4", True),
        ("There are 2 sofas. Answer: 3", "3", True), ("<think>7</think><answer>8</answer>", "8", True),
        ("약 3미터", "3 m", True),
        ("1000 ± 50 m", "1000 m", True), ("10^3 m", "1 km", True), ("1_000 m", "1 km", True), ("3 +/- 1", "3", True),
        ("one two three", "1", True), ("one hundred twenty-three", "123", True), ("twenty one two", "21", True),
        ("no idea", "2", None), ("", "2", None), ("B2", "2", None), ("1,5", "2", None), ("2.1.3", "2", None),
        ("none", "0", None), ("someone", "1", None), ("Answer: unknown. There are 2 rooms.", "2", None),
        ("세 개", "3", None),
    ],
)  # fmt: skip
def test_numbers(text: str, truth: str, right: bool | None) -> None:
    found = grade(text, [truth], Question("number"))
    assert (found.accurate if found.readable else None) == right


def test_the_tolerance_of_numbers_is_relative_and_not_for_counts() -> None:
    wide = Tolerances(number=0.5)
    assert grade("3 m", ["2 m"], Question("number"), wide).accurate
    assert not grade("3", ["2"], Question("number"), wide).accurate
    assert not grade("2.001 m", ["2 m"], Question("number"), Tolerances(number=0)).accurate


@pytest.mark.parametrize(
    ("text", "yaw", "pitch"),
    [
        ("in front of you", 0, 0), ("behind", 180, 0), ("to your right", 90, 0), ("on the left-hand side", -90, 0),
        ("above you", None, 90), ("straight up", None, 90), ("below", None, -90), ("front left", -45, 0),
        ("Front Right", 45, 0), ("behind and slightly left", -135, 0), ("behind you, to the right", 135, 0),
        ("right rear", 135, 0), ("back-left", -135, 0), ("upper left", -90, 45), ("left and above", -90, 45),
        ("front left, below", -45, -45), ("right behind you", 180, 0), ("right in front of you", 0, 0),
        ("not left but right", 90, 0), ("up ahead", 0, 0), ("it shows up on the left", -90, 0),
        ("over there, left", -90, 0),
        ("at 3 o'clock", 90, 0), ("3 o’clock", 90, 0), ("3:30 o'clock", 105, 0), ("at eleven o'clock", -30, 0),
        ("at your 12 o'clock", 0, 0), ("6 oclock", 180, 0), ("9 o'clock, above", -90, 45), ("3시 방향", 90, 0),
        ("90°", 90, 0), ("-90°", -90, 0), ("270 degrees", -90, 0), ("approx. 90° to the left", -90, 0),
        ("９０°", 90, 0),
        ("30 degrees left", -30, 0), ("left by about 30 degrees", -30, 0), ("left, approx. 30 degrees", -30, 0),
        ("turn 45° clockwise", 45, 0), ("45 degrees to the right and 20 degrees up", 45, 20),
        ("straight ahead, 30° up", 0, 30),
        ("yaw 45, pitch -10", 45, -10), ("yaw: -45°, pitch: 10°", -45, 10), ('{"yaw": 30, "pitch": -5}', 30, -5),
        ("(45, -10)", 45, -10), ("30°, -5°", 30, -5), ("azimuth=200", -160, 0), ("90", 90, 0),
        ("135° left, behind you", -135, 0),
        ("왼쪽 뒤", -135, 0), ("오른쪽 위", 90, 45), ("위치는 앞쪽", 0, 0), ("<answer>left</answer> right", -90, 0),
    ],
)  # fmt: skip
def test_directions(text: str, yaw: float | None, pitch: float) -> None:
    """At the poles any yaw is right."""
    found = read_truth(text, Question("direction"))
    assert found.pitch_deg == pytest.approx(pitch)
    assert yaw is None or found.yaw_deg == pytest.approx(yaw)


@pytest.mark.parametrize("text", [
    "", "nowhere", "north", "left and right", "left or front", "left or right", "in front, behind, left or right",
    "13 o'clock",
    "0 o'clock", "3 o'clock or 4 o'clock", "10 to 11 o'clock", "5 o'clock on the left", "400°", "yaw 30, pitch 100",
    "30° up", "-30° to the left", "30° to the left behind you", "pitch 20", "1.57 rad", "leftover", "not behind",
])  # fmt: skip
def test_directions_that_are_not_read(text: str) -> None:
    found = grade(text, ["behind"], Question("direction"))
    assert (found.readable, found.score, found.error_deg) == (False, 0.0, None)


def test_directions_are_scored_by_the_great_circle() -> None:
    question = Question("direction")
    assert grade("179° ", ["-179°"], question).error_deg == pytest.approx(2)
    assert grade("yaw 0, pitch 89", ["yaw 180, pitch 89"], question).error_deg == pytest.approx(2)
    assert grade("22.5°", ["front"], question).accurate and not grade("22.6°", ["front"], question).accurate
    assert grade("22.6°", ["front"], question, Tolerances(angle_deg=23)).accurate
    best = grade("left", ["front", "front left", "left"], question)
    assert best.accurate and best.error_deg == pytest.approx(0)
    for references in (["behind", "left", "right"], ["left", "right", "behind"]):  # the nearest, in whatever order
        assert grade("60°", references, question).error_deg == pytest.approx(30)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("banana", "number"),
        ("maybe", "yes_no"),
        ("north", "direction"),
        ("E", "choice"),
        ("[1, 2]", "box"),
        ("here", "point"),
    ],
)
def test_a_truth_that_is_none_of_its_kind_is_an_error(text: str, kind: str) -> None:
    options = ("x", "y") if kind == "choice" else ()
    with pytest.raises(ValueError, match="cannot be read as"):
        grade("anything", [text], Question(kind, options, size=(64, 32)))
