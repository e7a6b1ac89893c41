#!/usr/bin/env bash
# pillow-heif 1.8.1 with Pillow 12.3.0: a crop saved as HEIF still says in its metadata that it is the whole panorama.
#
# With Pillow XMP is lost on saving unless it is handed over (`xmp=`): a crop of a panorama, saved as JPEG, WebP or AVIF, is
# a plain picture. pillow-heif hands it over by itself, from the `info` that crop, resize and transpose copy: the crop's
# GPano tags are the panorama's, and a viewer or loader wraps 90 degrees around the whole sphere. The same code gives a
# plain picture or a wrong panorama, depending on the file name's ending.
# Seen: GPano in the saved crop: JPEG no, WEBP no, AVIF no, HEIF yes, with FullPanoWidthPixels and
# CroppedAreaImageWidthPixels 64 on a picture 16 pixels wide.
# What to do: `crop.info.pop("xmp", None)` before saving, or write the crop's own GPano tags.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow-heif==1.8.1 pillow==12.3.0
"$folder/venv/bin/python" - <<'PY'
import io
import sys

import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:ProjectionType="equirectangular"
GPano:FullPanoWidthPixels="64" GPano:CroppedAreaImageWidthPixels="64"/></rdf:RDF></x:xmpmeta>"""
seen = {}
for kind in ("JPEG", "WEBP", "AVIF", "HEIF"):
    whole, part = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 32), "olive").save(whole, kind, xmp=XMP)
    Image.open(io.BytesIO(whole.getvalue())).crop((0, 0, 16, 16)).save(part, kind)
    seen[kind] = b"GPano" in whole.getvalue(), b'FullPanoWidthPixels="64"' in part.getvalue()
print(f"pillow-heif {pillow_heif.__version__}: GPano in the panorama's file and in its crop's file: {seen}")
if seen != {"JPEG": (True, False), "WEBP": (True, False), "AVIF": (True, False), "HEIF": (True, True)}:
    sys.exit("pillow-heif or Pillow no longer does this")
PY
