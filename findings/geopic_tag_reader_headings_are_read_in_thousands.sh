#!/usr/bin/env bash
# geopic-tag-reader 1.10.1 and @photo-sphere-viewer/core 5.15.1: a heading of 90 degrees is written so that viewers read 90000.
#
# The package is Panoramax's: it writes a direction into a panorama as EXIF and as GPano:PoseHeadingDegrees. GPano's is a real
# number in text; what it writes is EXIF's kind of fraction, "90000/1000". Its own reader divides. Photo Sphere Viewer takes the
# digits up to the slash: 90000 degrees, 250 full turns, so that the east is shown as the north. ExifTool hands on the text.
# Seen: written 90, 200.456 and 350.29; the viewer reads 90000, 200456 and 350290; the package's reader 90, 200 and 350.
# What to do: rewrite the tag (`exiftool -XMP-GPano:PoseHeadingDegrees=90 FILE`). Needs node (20 or later) with npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check geopic-tag-reader==1.10.1 pillow==12.3.0
cd "$folder"
npm install --silent --no-audit --no-fund @photo-sphere-viewer/core@5.15.1 three@0.187.0 >install.log
"$folder/venv/bin/python" - <<'PY'
import datetime
import io
import pathlib
import sys

from geopic_tag_reader.reader import readPictureMetadata
from geopic_tag_reader.writer import Direction, PictureMetadata, PictureType, writePictureMetadata
from PIL import Image

grey = io.BytesIO()
Image.new("RGB", (64, 32), "grey").save(grey, "jpeg")
read = []
for heading in (90, 200.456, 350.29):
    wanted = PictureMetadata(
        capture_time=datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.timezone.utc), longitude=2.3, latitude=48.8,
        picture_type=PictureType.equirectangular, direction=Direction(heading),
    )
    written = writePictureMetadata(grey.getvalue(), wanted)
    pathlib.Path(f"{heading}.jpg").write_bytes(written)
    read.append(readPictureMetadata(written).heading)
print(f"the package's own reader: {read}")
if read != [90, 200, 350]:
    sys.exit("geopic-tag-reader no longer does this")
PY
cat >look.mjs <<'JS'
import fs from 'node:fs';
globalThis.window = globalThis;  // the library looks for a browser when it is loaded
globalThis.document = { createElement: () => ({ getContext: () => null, style: {} }), documentElement: { style: {} }, addEventListener() {} };
const { utils } = await import('@photo-sphere-viewer/core');
const read = ['90', '200.456', '350.29'].map((name) => utils.getXMPValue(fs.readFileSync(`${name}.jpg`, 'latin1'), 'PoseHeadingDegrees', false));
console.log('the viewer:', JSON.stringify(read));
if (JSON.stringify(read) !== '[90000,200456,350290]') {
  console.error('geopic-tag-reader or Photo Sphere Viewer no longer does this');
  process.exit(1);
}
JS
node look.mjs
