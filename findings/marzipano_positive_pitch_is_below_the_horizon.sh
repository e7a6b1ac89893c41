#!/usr/bin/env bash
# marzipano 0.10.2: a positive pitch is below the horizon, the other way round than in py360convert.
#
# Hotspots, camera poses and model answers are exchanged as (yaw, pitch). Marzipano's yaw grows to the right as elsewhere,
# its pitch grows downwards, so that a tour's hotspots land mirrored at the horizon when they are shown elsewhere. With
# objects near the horizon nobody notices.
# Seen: in a view of 800 x 600 pixels at yaw 0, pitch 0, (0.2, 0) is drawn at x 461 (right of the middle, 400) and (0, 0.2)
# at y 361 (below the middle, 300); py360convert's view at v_deg=+10 looks at latitude +10.
# What to do: negate the pitch on the way in and out. Needs node (20 or later) with npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund marzipano@0.10.2 >install.log
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check py360convert==1.0.4 numpy==2.4.6 scipy==1.17.1
cat >look.cjs <<'JS'
const View = require('marzipano/src/views/Rectilinear.js');
const view = new View({ yaw: 0, pitch: 0, fov: Math.PI / 2, width: 800, height: 600 });
const right = view.coordinatesToScreen({ yaw: 0.2, pitch: 0 }, {});
const pitched = view.coordinatesToScreen({ yaw: 0, pitch: 0.2 }, {});
console.log(`marzipano ${require('marzipano/package.json').version}: yaw 0.2 at x ${right.x.toFixed(0)} of 800, pitch 0.2 at y ${pitched.y.toFixed(0)} of 600 (from the top)`);
process.exit(right.x > 400 && pitched.y > 300 ? 0 : 1);
JS
node look.cjs || { echo "marzipano no longer does this" >&2; exit 1; }
venv/bin/python - <<'PY'
import sys
import numpy as np
from py360convert import e2p

latitude = np.repeat(90 - (np.arange(180) + 0.5)[:, None], 360, axis=1)
middle = float(e2p(latitude, 40, 0, 10, (41, 41))[20, 20])
print(f"py360convert: the view with v_deg=+10 looks at latitude {middle:.1f}")
if middle < 9:
    sys.exit("py360convert no longer does this")
PY
