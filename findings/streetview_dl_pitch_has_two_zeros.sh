#!/usr/bin/env bash
# streetview-dl 0.7.0: a view's pitch is measured from the horizon or from the nadir, by how its address was copied.
#
# An address of Google Street View states the view as "80.43t", degrees from straight down, and in a part for the preview
# picture as "pitch=9.57", degrees below the horizon. `extract_from_maps_url` returns the second where the address has that
# part and else the first, both as `pitch` (`url_pitch` in the JSON that the command writes). A data set from addresses in
# both forms holds level views with pitch 0 and with pitch 90, and in one of the two larger is further down, in the other up.
# Seen: the same view (the package's own example) is 9.57 with the preview part and 80.43 without; the two add up to 90.
# What to do: take the number before "t" yourself and subtract 90.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check streetview-dl==0.7.0
"$folder/venv/bin/python" - <<'PY'
import sys

from streetview_dl import extract_from_maps_url

view = "https://www.google.com/maps/@34.2084337,-118.55223,3a,75y,20.27h,{tilt}t/data=!3m7!1e1!3m5!1s7Dpn21NUjyv7RcROh2qzng!2e0"
preview = (
    "!6shttps:%2F%2Fstreetviewpixels-pa.googleapis.com%2Fv1%2Fthumbnail%3Fcb_client%3Dmaps_sv.tactile%26w%3D900%26h%3D600"
    "%26pitch%3D{below}%26panoid%3D7Dpn21NUjyv7RcROh2qzng%26yaw%3D20.268392957001552"
)
size = "!7i16384!8i8192"
seen = {}
for tilt, below in ((80.43, 9.570344560327754), (90, 0), (100, -10)):
    pitches = []
    for address in (view + preview + size, view + size):
        panorama, yaw, pitch = extract_from_maps_url(address.format(tilt=tilt, below=below))[:3]
        assert (panorama, round(yaw, 2)) == ("7Dpn21NUjyv7RcROh2qzng", 20.27)
        pitches.append(round(pitch, 2))
    seen[tilt] = pitches
    print(f"{tilt}t: pitch {pitches[0]} with the preview's part, {pitches[1]} without")
if seen != {80.43: [9.57, 80.43], 90: [0.0, 90.0], 100: [-10.0, 100.0]}:
    sys.exit("streetview-dl no longer does this")
PY
