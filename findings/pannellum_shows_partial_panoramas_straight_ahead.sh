#!/usr/bin/env bash
# pannellum 2.5.7: a partial panorama is shown straight ahead, wherever its GPano metadata say that it lies.
#
# GPano places a cropped panorama by CroppedAreaLeftPixels and CroppedAreaTopPixels. Pannellum reads sizes and the top
# from the file and sets haov, vaov and vOffset, so that one expects the left edge to count as well. It is never read: the
# part's middle is at yaw 0, hotspots and questions such as "what is on my right" are off by up to 180 degrees. The height is
# right, so nothing looks wrong.
# Seen: parts of 90 degrees that begin at column 0, 1536 or 3072 of 4096: the same settings each time, whereas a part that
# begins further down gets another vOffset.
# What to do: subtract ((left + width / 2) / full - 0.5) * 360 from every yaw before you show it.
# The function is taken out of the package's source file and run on its own: the viewer itself needs a browser.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund pannellum@2.5.7 >install.log
cat >look.cjs <<'JS'
const fs = require('fs');
const source = fs.readFileSync('node_modules/pannellum/src/js/pannellum.js', 'utf8');
const start = source.indexOf('function parseGPanoXMP(image)');
const code = source.slice(start, source.indexOf('\n}\n', start) + 2);
function settings(left, top) {
  const tags = { FullPanoWidthPixels: 4096, FullPanoHeightPixels: 2048, CroppedAreaImageWidthPixels: 1024, CroppedAreaImageHeightPixels: 512,
    CroppedAreaLeftPixels: left, CroppedAreaTopPixels: top };
  const packet = '<x:xmpmeta>' + Object.entries(tags).map(([name, value]) => `GPano:${name}="${value}"`).join(' ') + '</x:xmpmeta>';
  class FileReader { addEventListener(_, then) { this.then = then; } readAsBinaryString() { this.result = packet; this.then(); } }
  const config = {};
  new Function('FileReader', 'navigator', 'window', 'config', 'specifiedPhotoSphereExcludes', 'panoImage', 'image', `${code}\nparseGPanoXMP(image);`)(
    FileReader, { userAgent: 'node' }, { URL: { createObjectURL: () => '' } }, config, [], {}, {});
  return JSON.stringify(config);
}
const seen = [[0, 768], [1536, 768], [3072, 768], [1536, 1024]].map(([left, top]) => settings(left, top));
console.log(`pannellum ${require('pannellum/package.json').version}, left edge 0, 1536, 3072: ${seen.slice(0, 3).join(' ')}; further down: ${seen[3]}`);
const same = seen[0] === seen[1] && seen[1] === seen[2] && seen[1] !== seen[3] && JSON.parse(seen[0]).haov === 90;
if (!same) { console.error('pannellum no longer does this'); process.exit(1); }
JS
node look.cjs
