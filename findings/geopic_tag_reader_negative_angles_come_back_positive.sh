#!/usr/bin/env bash
# geopic-tag-reader 1.10.1: a pitch of -10 degrees, written and read again, is 350; a time at -03:30 is an hour off.
#
# Panoramax's package documents pitch and roll from -90 to 90, and its writer takes them so; it writes them modulo 360, and its
# reader gives back what is written: a camera tilted down by 10 degrees is tilted up by 350, outside the documented range and
# wrong in every mean and threshold. Zones west of Greenwich with half an hour, as Newfoundland's, are written with the hour
# rounded away from zero and the minutes kept: -03:30 becomes -04:30. Of the two times it reads, the GPS's is right.
# Seen: pitch -10 and roll -5 come back as 350 and 355, 10 and 5 as 10 and 5; 12:00 at -03:30 as 12:00 at -04:30.
# What to do: take (angle + 180) % 360 - 180; use `ts_by_source.gps`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check geopic-tag-reader==1.10.1 pillow==12.3.0
"$folder/venv/bin/python" - <<'PY'
import datetime
import io
import sys

from geopic_tag_reader.reader import readPictureMetadata
from geopic_tag_reader.writer import PictureMetadata, PictureType, writePictureMetadata
from PIL import Image

grey = io.BytesIO()
Image.new("RGB", (64, 32), "grey").save(grey, "jpeg")
hours = datetime.timedelta(hours=1)
seen = []
for pitch, roll, offset in ((10, 5, -3.0), (-10, -5, -3.5)):
    taken = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone(offset * hours))
    wanted = PictureMetadata(
        capture_time=taken, longitude=-52.7, latitude=47.5, picture_type=PictureType.equirectangular, pitch=pitch, roll=roll
    )
    read = readPictureMetadata(writePictureMetadata(grey.getvalue(), wanted))
    times = read.ts_by_source
    seen.append((read.pitch, read.roll, (times.camera - taken) / hours, (times.gps - taken) / hours))
    print(f"pitch {pitch}, roll {roll} come back as {read.pitch}, {read.roll}; {taken} as {times.camera} (camera), {times.gps} (GPS)")
if seen != [(10.0, 5.0, 0.0, 0.0), (350.0, 355.0, 1.0, 0.0)]:
    sys.exit("geopic-tag-reader no longer does this")
PY
