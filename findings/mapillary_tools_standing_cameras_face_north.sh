#!/usr/bin/env bash
# mapillary-tools 0.14.7: where the camera stands still, its pictures face north, and one a stop is kept so.
#
# A panorama's heading says where its middle looks; everything that is asked about left, behind or north of it hangs on it.
# From a GPX track the package takes the bearing from the point before a picture to the point after it. Between two equal
# points, at a red light, there is none: it writes 0, which is north, as MAPCompassHeading, not nothing and not the last one.
# The next step drops pictures at the same place with the same heading. The first of a stop has "turned" and stays.
# Seen on a track due east with a stop of four seconds: 12 pictures, 9 are kept, 8 with heading 90, the one of the stop 0.
# What to do: drop pictures taken at the place of the one before, or pass --interpolate_directions, which works after that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check mapillary-tools==0.14.7 piexif==1.1.3 pillow==12.3.0
export MAPILLARY_CONFIG_PATH="$folder/config"
venv/bin/python - <<'PY'
from datetime import datetime, timedelta
from pathlib import Path

import piexif
from PIL import Image

start, longitude, points = datetime(2026, 5, 1, 10), 13.0, []
for second in range(13):
    longitude += 0 if 4 <= second < 8 else 0.0001
    time = start + timedelta(seconds=second - 0.5)
    points.append(f'<trkpt lat="52.0" lon="{longitude:.6f}"><ele>30</ele><time>{time.isoformat()}Z</time></trkpt>')
Path("track.gpx").write_text(f'<gpx version="1.1" creator="track" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>{"".join(points)}</trkseg></trk></gpx>')
Path("pictures").mkdir()
for second in range(12):
    taken = (start + timedelta(seconds=second)).strftime("%Y:%m:%d %H:%M:%S")
    exif = {"Exif": {piexif.ExifIFD.DateTimeOriginal: taken.encode(), piexif.ExifIFD.OffsetTimeOriginal: b"+00:00"}}
    Image.new("RGB", (64, 32), "teal").save(f"pictures/{second:02d}.jpg", exif=piexif.dump(exif))
PY
look() {
    TZ=UTC venv/bin/mapillary_tools process pictures --geotag_source gpx --geotag_source_path track.gpx --desc_path kept.json "$@" >log 2>&1 || { tail -3 log >&2; exit 1; }
    venv/bin/python -c '
import json
kept = sorted((row["filename"][-6:-4], row["MAPCompassHeading"]["TrueHeading"]) for row in json.load(open("kept.json")) if "error" not in row)
print(" ".join(f"{name}:{heading:.0f}" for name, heading in kept))'
}
plain=$(look)
later=$(look --interpolate_directions)
echo "$(venv/bin/mapillary_tools --version), kept pictures and their headings: $plain; with --interpolate_directions: $later"
[ "$plain" = "00:90 01:90 02:90 03:0 07:90 08:90 09:90 10:90 11:90" ] || { echo "mapillary-tools no longer does this" >&2; exit 1; }
