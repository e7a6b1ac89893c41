#!/usr/bin/env bash
# pycocoevalcap 1.2: one answer with a line separator (U+2028) moves every later caption to the next picture.
#
# PTBTokenizer writes all captions to a file, one a line, and reads the lines of tokens back in the same order. It replaces
# "\n" in a caption, but Java also ends a line at U+2028, U+2029, "\r", U+000B and U+000C. Text from web pages, PDF files and
# chat models holds such characters. The caption then has two lines, its second half becomes the next picture's caption,
# and so on to the end, where the last one is dropped: scores of a whole test set fall, with no error.
# Seen: three pictures, "a red<U+2028>car", "a dog runs", "two men": the tokens of the second are "car", of the third "a dog
# runs". With a line feed instead: "a red car", "a dog runs", "two men".
# What to do: " ".join(caption.split()) before tokenizing, which collapses all of them. Needs java.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pycocoevalcap==1.2 numpy==2.4.6
"$folder/venv/bin/python" - 2>"$folder/java.log" <<'PY'
import sys

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer


def tokens(separator: str) -> list[str]:
    captions = [f"a red{separator}car", "a dog runs", "two men"]
    found = PTBTokenizer().tokenize({i: [{"caption": caption}] for i, caption in enumerate(captions)})
    return [found[i][0] for i in range(3)]


seen = {f"U+{ord(one):04X}": tokens(one) for one in ("\n", "\u2028", "\u2029", "\r", "\v", "\f")}
print("pycocoevalcap 1.2, tokens of three pictures' captions by the character inside the first:")
for name, lines in seen.items():
    print(f"{name}: {lines}")
moved = ["a red", "car", "a dog runs"]
if seen["U+000A"] != ["a red car", "a dog runs", "two men"] or seen["U+2028"] != moved or seen["U+2029"] != moved:
    sys.exit("pycocoevalcap no longer does this")
PY
