#!/usr/bin/env bash
# @photo-sphere-viewer/core 5.15.1 and ExifTool 13.59: GPano metadata written in XMP's short form are not seen.
#
# ExifTool writes XMP with single quotes. In its normal form properties are elements and the viewer finds them; with
# `-api Compact=Shorthand` (or `Compact=All`) they are attributes, and the viewer's patterns want double quotes around
# an attribute's value. Both files are valid and say the same. The viewer then has neither cropping nor pose: a partial
# panorama is stretched over the whole sphere, north is where the picture's middle is. It says nothing.
# Seen: of one JPEG, normal form: full width 64, heading 350.7; short form: null and null.
# What to do: write the normal form, or give the viewer `panoData` instead of relying on the file's metadata.
# Needs node (20 or later) with npm, and perl, which ExifTool runs in.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @photo-sphere-viewer/core@5.15.1 three@0.187.0 exiftool-vendored.pl@13.59.3 >install.log
python3 - <<'PY'
import base64, pathlib  # a grey JPEG of 8 x 8 pixels

pathlib.Path("element.jpg").write_bytes(base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgICAgMCAgIDAwMDBAYEBAQEBAgGBgUGCQgKCgkICQkKDA8MCgsOCwkJDRENDg8QEBEQCgwSExIQEw8QEBD/"
    "wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACf/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AVN//2Q=="
))
PY
cp element.jpg attribute.jpg
exiftool() { perl node_modules/exiftool-vendored.pl/bin/exiftool -q -overwrite_original "$@"; }
tags=(-XMP-GPano:ProjectionType=equirectangular -XMP-GPano:FullPanoWidthPixels=64 -XMP-GPano:CroppedAreaLeftPixels=16
  -XMP-GPano:PoseHeadingDegrees=350.7)
exiftool "${tags[@]}" element.jpg
exiftool -api Compact=Shorthand "${tags[@]}" attribute.jpg
cat >look.mjs <<'JS'
import fs from 'node:fs';
globalThis.window = globalThis;  // the library looks for a browser when it is loaded
globalThis.document = { createElement: () => ({ getContext: () => null, style: {} }), documentElement: { style: {} }, addEventListener() {} };
const { utils } = await import('@photo-sphere-viewer/core');
const seen = {};
for (const form of ['element', 'attribute']) {
  const text = fs.readFileSync(`${form}.jpg`, 'latin1');
  seen[form] = [utils.getXMPValue(text, 'FullPanoWidthPixels'), utils.getXMPValue(text, 'PoseHeadingDegrees', false), text.includes("350.7")];
}
console.log('full width, heading, whether the file holds the heading:', JSON.stringify(seen));
if (JSON.stringify(seen) !== '{"element":[64,350.7,true],"attribute":[null,null,true]}') {
  console.error('Photo Sphere Viewer or ExifTool no longer does this');
  process.exit(1);
}
JS
node look.mjs
