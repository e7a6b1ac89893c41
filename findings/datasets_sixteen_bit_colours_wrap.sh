#!/usr/bin/env bash
# datasets 5.2.0: panoramas of 16 bits a channel are stored modulo 256, as noise.
#
# HDR stitchers and raw developers give arrays of uint16. One expects Image() to scale them, to keep them (grey ones are
# kept, as TIFF) or to refuse them (floats are refused). Three channels are cast to uint8 instead, and the cast wraps:
# 255 is white and 256 black, a smooth sky becomes rings. A UserWarning speaks of "downcasting"; in `map` with several
# processes and in loading scripts it goes under.
# Seen: 1,000 in each channel becomes 232; the grey picture of 1,000 stays 1,000.
# What to do: (array / 257).round().astype("uint8") before it enters the dataset.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 HF_HOME="$folder/home"
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6 pandas==3.1.1 pillow==12.3.0
"$folder/venv/bin/python" - <<'PY'
import sys
import warnings

import datasets
import numpy as np

seen, told = {}, set()
for name, shape in (("grey", (4, 8)), ("colour", (4, 8, 3))):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = datasets.Dataset.from_dict(
            {"image": [np.full(shape, 1000, np.uint16)]}, features=datasets.Features({"image": datasets.Image()})
        )
        picture = np.asarray(table[0]["image"])
    seen[name] = str(picture.dtype), int(picture.max())
    told |= {(name, str(one.message)) for one in caught if "cast" in str(one.message)}
print(f"datasets {datasets.__version__}, pictures of 1,000: {seen}; {sorted(told)}")
if seen != {"grey": ("uint16", 1000), "colour": ("uint8", 232)}:
    sys.exit("datasets no longer does this")
PY
