// <pano-view src="data:image/jpeg;..."></pano-view>: look around in an equirectangular panorama.
// Drag, arrow keys, wheel. Attributes yaw and pitch (degrees; right and up are positive) and fov tell where it looks.
// Drawn on a 2D canvas, so that it needs neither WebGL nor anything from outside.
(() => {
  const RADIANS = Math.PI / 180;
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  class PanoView extends HTMLElement {
    static observedAttributes = ["src"];

    connectedCallback() {
      if (this.canvas) return;
      this.yaw = 0; this.pitch = 0; this.fov = 90;
      this.canvas = document.createElement("canvas");
      this.canvas.width = 800; this.canvas.height = 450;
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label", "Panorama. Drag or use the arrow keys to look around.");
      this.label = document.createElement("div");
      this.label.className = "pano-label";
      this.replaceChildren(this.canvas, this.label);
      this.listen();
      this.load();
    }

    attributeChangedCallback() { if (this.canvas) this.load(); }

    load() {
      const source = this.getAttribute("src");
      if (!source) return;
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

    listen() {
      let last = null;
      this.canvas.addEventListener("pointerdown", (event) => {
        last = [event.clientX, event.clientY];
        this.canvas.setPointerCapture(event.pointerId);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        if (!last) return;
        const scale = this.fov / this.canvas.clientWidth;  // the scene follows the hand
        this.turn((last[0] - event.clientX) * scale, (event.clientY - last[1]) * scale, false);
        last = [event.clientX, event.clientY];
      });
      const rest = () => { if (last) { last = null; this.draw(true); } };
      this.canvas.addEventListener("pointerup", rest);
      this.canvas.addEventListener("pointercancel", rest);
      this.canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        this.fov = clamp(this.fov + 5 * Math.sign(event.deltaY), 30, 120);
        this.draw(true);
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
      const side = Math.round(this.yaw) === 0 ? "" : this.yaw > 0 ? " right" : " left";
      this.label.textContent =
        `looking ${Math.abs(Math.round(this.yaw))}°${side}, ${Math.round(this.pitch)}° up · drag, arrow keys, wheel`;
      for (const name of ["yaw", "pitch", "fov"]) this.setAttribute(name, this[name].toFixed(1));
    }
  }

  if (!customElements.get("pano-view")) customElements.define("pano-view", PanoView);
})();
