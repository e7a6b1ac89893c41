// <pano-view src="data:image/jpeg;..."></pano-view>: look around in an equirectangular panorama.
// Drag, swipe, pinch, arrow keys, wheel. Attributes yaw and pitch (degrees; right and up are positive) and fov say where
// it looks, drawn-by which of the two drew it: Pannellum (WebGL), or, where there is no WebGL, a plain canvas.
// Nothing comes from outside.
(() => {
  const RADIANS = Math.PI / 180;
  const FOV = { least: 30, most: 120, first: 90 };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const hasWebGL = () => {
    try {
      const canvas = document.createElement("canvas");
      return Boolean(window.pannellum && (canvas.getContext("webgl") || canvas.getContext("experimental-webgl")));
    } catch { return false; }
  };

  class PanoView extends HTMLElement {
    static observedAttributes = ["src"];

    connectedCallback() {
      if (this.label) return;
      this.stage = document.createElement("div");
      this.stage.className = "pano-stage";
      this.label = document.createElement("div");
      this.label.className = "pano-label";
      this.replaceChildren(this.stage, this.label);
      this.load();
    }

    disconnectedCallback() { this.drawer?.end(); this.drawer = null; }

    attributeChangedCallback() { if (this.label) this.load(); }

    load() {
      const source = this.getAttribute("src");
      if (!source) return;
      this.drawer?.end();
      this.draw(hasWebGL() ? Sphere : Canvas, source);
    }

    draw(Kind, source) {
      this.stage.replaceChildren();
      this.drawer = new Kind(this, source);
      this.setAttribute("drawn-by", Kind.label);
    }

    // No WebGL after all (a lost context, a texture that is too large): the plain canvas draws.
    giveUp() {
      this.drawer?.end();
      this.draw(Canvas, this.getAttribute("src"));
    }

    looks(yaw, pitch, fov) {
      const told = { yaw, pitch, fov };
      for (const [name, value] of Object.entries(told)) {
        const text = (Object.is(value, -0) ? 0 : value).toFixed(1);
        if (this.getAttribute(name) !== text) this.setAttribute(name, text);
      }
      const side = Math.round(yaw) === 0 ? "" : yaw > 0 ? " right" : " left";
      const height = Math.round(pitch) < 0 ? `${-Math.round(pitch)}° down` : `${Math.round(pitch)}° up`;
      this.label.textContent = `looking ${Math.abs(Math.round(yaw))}°${side}, ${height} · drag, pinch, arrow keys, wheel`;
    }
  }

  class Sphere {
    static label = "pannellum";

    constructor(host, source) {
      this.host = host;
      this.over = false;
      fetch(source).then((answer) => answer.blob()).then((blob) => {
        if (this.over) return;
        this.address = URL.createObjectURL(blob);
        const place = document.createElement("div");
        place.className = "pano-sphere";
        host.stage.replaceChildren(place);
        this.viewer = pannellum.viewer(place, {
          type: "equirectangular", panorama: this.address, autoLoad: true, hfov: FOV.first, minHfov: FOV.least,
          maxHfov: FOV.most, showFullscreenCtrl: true, keyboardZoom: true, compass: false,
        });
        place.setAttribute("aria-label", "Panorama. Drag or use the arrow keys to look around.");
        this.viewer.on("error", () => host.giveUp());
        this.viewer.on("load", () => { this.watch(); });
      }).catch(() => host.giveUp());
    }

    watch() {
      if (this.over) return;
      const yaw = ((this.viewer.getYaw() + 540) % 360) - 180;
      this.host.looks(yaw, this.viewer.getPitch(), this.viewer.getHfov());
      requestAnimationFrame(() => this.watch());
    }

    end() {
      this.over = true;
      try { this.viewer?.destroy(); } catch { /* it was not ready yet */ }
      if (this.address) URL.revokeObjectURL(this.address);
    }
  }

  class Canvas {
    static label = "canvas";

    constructor(host, source) {
      this.host = host;
      this.yaw = 0; this.pitch = 0; this.fov = FOV.first;
      this.canvas = document.createElement("canvas");
      this.canvas.width = 800; this.canvas.height = 450;
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label", "Panorama. Drag or use the arrow keys to look around.");
      host.stage.replaceChildren(this.canvas);
      this.listen();
      const image = new Image();
      image.onload = () => {
        const full = document.createElement("canvas");
        full.width = image.naturalWidth; full.height = image.naturalHeight;
        const context = full.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        this.source = context.getImageData(0, 0, full.width, full.height);
        this.draw(true);
      };
      image.src = source;
    }

    end() { this.source = null; }

    zoom(fov) { this.fov = clamp(fov, FOV.least, FOV.most); this.draw(true); }

    listen() {
      const fingers = new Map();
      let apart = null;  // how far two fingers were apart, and the field of view then
      const distance = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
      this.canvas.addEventListener("pointerdown", (event) => {
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        this.canvas.setPointerCapture(event.pointerId);
        apart = fingers.size === 2 ? [distance(), this.fov] : null;
      });
      this.canvas.addEventListener("pointermove", (event) => {
        const last = fingers.get(event.pointerId);
        if (!last) return;
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        if (apart) { this.zoom(apart[1] * apart[0] / Math.max(1, distance())); return; }
        const scale = this.fov / this.canvas.clientWidth;  // the scene follows the hand
        this.turn((last[0] - event.clientX) * scale, (event.clientY - last[1]) * scale, false);
      });
      const rest = (event) => { if (fingers.delete(event.pointerId)) { apart = null; this.draw(true); } };
      this.canvas.addEventListener("pointerup", rest);
      this.canvas.addEventListener("pointercancel", rest);
      this.canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        this.zoom(this.fov + 5 * Math.sign(event.deltaY));
      }, { passive: false });
      this.canvas.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-15, 0], ArrowRight: [15, 0], ArrowUp: [0, 15], ArrowDown: [0, -15] }[event.key];
        if (!step) return;
        event.preventDefault();
        this.turn(...step, true);
      });
    }

    turn(yaw, pitch, fine) {
      this.yaw = ((this.yaw + yaw + 540) % 360) - 180;
      this.pitch = clamp(this.pitch + pitch, -90, 90);
      if (fine) return this.draw(true);
      if (!this.waiting) {
        this.waiting = true;
        requestAnimationFrame(() => { this.waiting = false; this.draw(false); });
      }
    }

    draw(fine) {
      if (!this.source) return;
      const { width: W, height: H, data } = this.source;
      const pixels = new Uint32Array(data.buffer);
      const step = fine ? 1 : 2;
      const width = this.canvas.width / step, height = this.canvas.height / step;
      const picture = new ImageData(width, height);
      const drawn = new Uint32Array(picture.data.buffer);
      const focal = width / 2 / Math.tan(this.fov / 2 * RADIANS);
      const sine = Math.sin(this.pitch * RADIANS), cosine = Math.cos(this.pitch * RADIANS);
      const yaw = this.yaw * RADIANS;
      for (let row = 0; row < height; row++) {
        const up = (height / 2 - row - 0.5) / focal;
        const y = up * cosine + sine, z = cosine - up * sine;  // pitched camera, forward is +z
        for (let column = 0; column < width; column++) {
          const x = (column + 0.5 - width / 2) / focal;
          const longitude = Math.atan2(x, z) + yaw;
          const latitude = Math.atan2(y, Math.hypot(x, z));
          let u = Math.floor((longitude / (2 * Math.PI) + 0.5) * W) % W;
          if (u < 0) u += W;
          const v = clamp(Math.floor((0.5 - latitude / Math.PI) * H), 0, H - 1);
          drawn[row * width + column] = pixels[v * W + u];
        }
      }
      const context = this.canvas.getContext("2d");
      if (step === 1) {
        context.putImageData(picture, 0, 0);
      } else {
        const small = document.createElement("canvas");
        small.width = width; small.height = height;
        small.getContext("2d").putImageData(picture, 0, 0);
        context.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
      }
      this.host.looks(this.yaw, this.pitch, this.fov);
    }
  }

  if (!customElements.get("pano-view")) customElements.define("pano-view", PanoView);
})();
