// Moving point clouds that can be turned: a viewer per <canvas data-cloud="ID">, drawn in 2D so that it needs no graphics card.
// Points are in the camera frame, metres: x right, y down, z forward. At rest angles of zero the view is the video camera's.
(() => {
  "use strict";
  const MISSING = -32768, HALF = 32500, TRAIL = 10, TRAILS = 24;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

  function decode(spec) {
    const bytes = Uint8Array.from(atob(spec.data), (c) => c.charCodeAt(0));
    const metres = (offset, count) => {
      const levels = new Int16Array(bytes.buffer, offset, spec.frames * count * 3);
      return Float32Array.from(levels, (v, i) => (v === MISSING ? NaN : (v + HALF) * spec.step_m + spec.low[i % 3]));
    };
    const first = spec.frames * spec.points * 6, second = spec.frames * spec.predicted * 6;
    return { points: metres(0, spec.points), predicted: metres(first, spec.predicted), seen: bytes.subarray(first + second) };
  }

  function niceStep(length, wanted) {
    const raw = length / wanted, power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999) || raw;
  }

  function scaleText(metres) {
    if (metres >= 0.995) return `${Number(metres.toPrecision(3))} m`;
    return metres >= 0.00995 ? `${Number((metres * 100).toPrecision(3))} cm` : `${Number((metres * 1000).toPrecision(3))} mm`;
  }

  class Viewer {
    constructor(canvas) {
      this.canvas = canvas;
      this.spec = JSON.parse(document.getElementById(canvas.dataset.cloud).textContent);
      Object.assign(this, decode(this.spec));
      this.frameBox();
      this.home();
      this.turning = !still;
      this.playing = this.spec.frames > 1 && !still;
      // Some way into the motion, where its trails already tell the direction.
      this.time = 0.35 * this.spec.frames / this.spec.fps;
      this.pointers = new Map();
      this.bar();
      this.colours();
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.colours(); this.draw(); });
      this.listen();
      new ResizeObserver(() => this.resize()).observe(canvas);
      this.resize();
      this.near = false;
      new IntersectionObserver((entries) => {
        this.near = entries[entries.length - 1].isIntersecting;
        this.wake();
      }).observe(canvas);
    }

    // The box that the axes stand on: the bulk of the points, never thinner than a fifth of its longest side.
    frameBox() {
      const [low, high] = this.spec.box;
      const longest = Math.max(...high.map((h, i) => h - low[i]), 1e-3);
      this.centre = high.map((h, i) => (h + low[i]) / 2);
      const half = high.map((h, i) => Math.max((h - low[i]) / 2, longest * 0.1) * 1.06);
      this.low = this.centre.map((c, i) => c - half[i]);
      this.high = this.centre.map((c, i) => c + half[i]);
      this.radius = Math.hypot(...half);
      this.step = niceStep(longest, 4);
    }

    home() { this.yaw = 0.55; this.pitch = 0.42; this.zoom = 1; }

    colours() {
      const style = getComputedStyle(this.canvas);
      this.colour = Object.fromEntries(["ink", "quiet", "floor", "ground", "seen", "carried", "predicted"].map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
    }

    bar() {
      const bar = document.createElement("div");
      bar.className = "controls";
      const button = (text, label, action) => {
        const node = document.createElement("button");
        node.type = "button";
        node.textContent = text;
        if (label) node.setAttribute("aria-label", label);
        node.addEventListener("click", action);
        bar.append(node);
        return node;
      };
      if (this.spec.frames > 1) {
        this.playButton = button("Pause", "", () => { this.playing = !this.playing; this.wake(); });
        this.slider = document.createElement("input");
        Object.assign(this.slider, { type: "range", min: 0, max: this.spec.frames - 1, value: 0 });
        this.slider.setAttribute("aria-label", "Frame");
        this.slider.addEventListener("input", () => {
          this.playing = false;
          this.time = Number(this.slider.value) / this.spec.fps;
          this.wake();
          this.draw();
        });
        this.clock = document.createElement("output");
        bar.append(this.slider, this.clock);
      }
      button("−", "Zoom out", () => this.scale(1 / 1.25));
      button("+", "Zoom in", () => this.scale(1.25));
      button("Reset", "Reset the view", () => { this.home(); this.turning = !still; this.wake(); this.draw(); });
      this.canvas.parentElement.after(bar);
    }

    listen() {
      const canvas = this.canvas;
      canvas.addEventListener("pointerdown", (e) => {
        this.turning = false;
        this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
        canvas.setPointerCapture(e.pointerId);
        canvas.classList.add("held");
      });
      canvas.addEventListener("pointermove", (e) => {
        const last = this.pointers.get(e.pointerId);
        if (!last) return;
        const spread = this.spread();
        this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
        if (this.pointers.size === 2) { if (spread > 0) this.scale(this.spread() / spread); return; }
        this.turn((e.clientX - last[0]) * 0.01, (e.clientY - last[1]) * 0.01);
      });
      for (const end of ["pointerup", "pointercancel"]) {
        canvas.addEventListener(end, (e) => { this.pointers.delete(e.pointerId); canvas.classList.toggle("held", this.pointers.size > 0); });
      }
      // The wheel scrolls the page until the view was clicked: a page that stops scrolling under the pointer is a trap.
      canvas.addEventListener("wheel", (e) => {
        if (document.activeElement !== canvas && !e.ctrlKey) return;
        e.preventDefault();
        this.scale(Math.exp(-e.deltaY * 0.0015));
      }, { passive: false });
      canvas.addEventListener("keydown", (e) => {
        const turns = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[e.key];
        if (turns) { this.turning = false; this.turn(...turns); }
        else if (e.key === "+" || e.key === "=") this.scale(1.25);
        else if (e.key === "-") this.scale(1 / 1.25);
        else if (e.key === " " && this.playButton) this.playButton.click();
        else return;
        e.preventDefault();
      });
    }

    spread() {
      const [a, b] = [...this.pointers.values()];
      return a && b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
    }

    turn(dx, dy) {
      this.yaw -= dx;
      this.pitch = Math.min(1.5, Math.max(-1.5, this.pitch + dy));
      this.draw();
    }

    scale(factor) {
      this.turning = false;
      this.zoom = Math.min(12, Math.max(0.3, this.zoom * factor));
      this.draw();
    }

    resize() {
      const ratio = Math.min(devicePixelRatio || 1, 2);
      this.width = this.canvas.clientWidth;
      this.height = this.canvas.clientHeight;
      this.canvas.width = Math.max(1, Math.round(this.width * ratio));
      this.canvas.height = Math.max(1, Math.round(this.height * ratio));
      this.pen = this.canvas.getContext("2d");
      this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.draw();
    }

    wake() {
      if (this.playButton) this.playButton.textContent = this.playing ? "Pause" : "Play";
      if (this.ticking || !this.near || !(this.turning || this.playing)) return;
      this.ticking = true;
      let last;
      const tick = (now) => {
        const passed = last === undefined ? 0 : Math.min(now - last, 100) / 1000;
        last = now;
        if (this.turning) this.yaw += passed * 0.35;
        // Half a second of rest at the end, so that the start of the motion is recognised.
        if (this.playing) this.time = (this.time + passed) % (this.spec.frames / this.spec.fps + 0.5);
        this.draw();
        this.ticking = this.near && (this.turning || this.playing);
        if (this.ticking) requestAnimationFrame(tick);
      };
      requestAnimationFrame(tick);
    }

    // Camera frame to the screen: [x, y, distance], pixels and multiples of the scene's radius.
    project(x, y, z) {
      const dx = (x - this.centre[0]) / this.radius, dy = (y - this.centre[1]) / this.radius, dz = (z - this.centre[2]) / this.radius;
      const { cy, sy, cp, sp } = this.angles;
      const rx = dx * cy + dz * sy, rz = dz * cy - dx * sy;
      const ry = dy * cp - rz * sp, depth = 3.4 + rz * cp + dy * sp;
      const f = (Math.min(this.width, this.height * 1.25) * 1.6 * this.zoom) / Math.max(depth, 0.1);
      return [this.width / 2 + rx * f, this.height / 2 + ry * f, depth];
    }

    draw() {
      if (!this.pen) return;
      this.angles = { cy: Math.cos(this.yaw), sy: Math.sin(this.yaw), cp: Math.cos(this.pitch), sp: Math.sin(this.pitch) };
      const frame = Math.min(this.spec.frames - 1, Math.floor(this.time * this.spec.fps + 1e-6));
      this.pen.clearRect(0, 0, this.width, this.height);
      this.floor();
      this.trails(frame);
      this.dots(frame);
      this.ruler();
      if (this.slider) {
        this.slider.value = frame;
        this.clock.textContent = `${(frame / this.spec.fps).toFixed(2)} s`;
      }
    }

    line(a, b) {
      const p = this.project(...a), q = this.project(...b);
      this.pen.beginPath();
      this.pen.moveTo(p[0], p[1]);
      this.pen.lineTo(q[0], q[1]);
      this.pen.stroke();
    }

    // A floor of squares of one step, and the three axes on its corner with their coordinates.
    floor() {
      const { pen, low, high, step } = this;
      const marks = (axis) => {
        const list = [];
        for (let i = Math.ceil(low[axis] / step); i * step <= high[axis] + 1e-9; i++) list.push(i * step);
        return list;
      };
      pen.lineWidth = 1;
      pen.fillStyle = this.colour.ground;
      pen.beginPath();
      for (const [x, z] of [[low[0], low[2]], [high[0], low[2]], [high[0], high[2]], [low[0], high[2]]]) {
        const p = this.project(x, high[1], z);
        pen.lineTo(p[0], p[1]);
      }
      pen.fill();
      pen.strokeStyle = this.colour.floor;
      for (const x of marks(0)) this.line([x, high[1], low[2]], [x, high[1], high[2]]);
      for (const z of marks(2)) this.line([low[0], high[1], z], [high[0], high[1], z]);
      pen.strokeStyle = this.colour.quiet;
      pen.lineWidth = 1.4;
      const corner = [low[0], high[1], low[2]];
      const ends = [[high[0], high[1], low[2]], [low[0], low[1], low[2]], [low[0], high[1], high[2]]];
      ends.forEach((end) => this.line(corner, end));
      pen.fillStyle = this.colour.quiet;
      pen.font = "11px ui-sans-serif, system-ui, sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      const middle = this.project(...this.centre);
      const label = (point, text, away) => {
        const p = this.project(...point), dx = p[0] - middle[0], dy = p[1] - middle[1], size = Math.hypot(dx, dy) || 1;
        const x = p[0] + (dx / size) * away, y = p[1] + (dy / size) * away;
        pen.fillText(text, Math.min(this.width - 16, Math.max(16, x)), Math.min(this.height - 9, Math.max(9, y)));
      };
      const text = (v) => String(Number(v.toFixed(4)));
      for (const x of marks(0)) label([x, high[1], low[2]], text(x), 13);
      for (const z of marks(2)) label([low[0], high[1], z], text(z), 15);
      for (const y of marks(1)) label([low[0], y, low[2]], text(y), 15);
      pen.fillStyle = this.colour.ink;
      pen.font = "600 12px ui-sans-serif, system-ui, sans-serif";
      ["x, m", "y, m", "z, m"].forEach((name, axis) => label(ends[axis], name, 30));
    }

    trails(frame) {
      const { pen } = this, count = this.spec.points, stride = Math.max(1, Math.floor(count / TRAILS));
      pen.strokeStyle = this.colour.seen;
      pen.lineWidth = 1.2;
      for (let n = 0; n < count; n += stride) {
        let before = null;
        for (let t = Math.max(0, frame - TRAIL); t <= frame; t++) {
          const i = (t * count + n) * 3;
          if (Number.isNaN(this.points[i])) { before = null; continue; }
          const p = this.project(this.points[i], this.points[i + 1], this.points[i + 2]);
          if (before) {
            pen.globalAlpha = 0.4 * (1 - (frame - t) / (TRAIL + 1));
            pen.beginPath();
            pen.moveTo(before[0], before[1]);
            pen.lineTo(p[0], p[1]);
            pen.stroke();
          }
          before = p;
        }
      }
      pen.globalAlpha = 1;
    }

    dots(frame) {
      const { pen } = this, list = [];
      const gather = (cloud, count, kind) => {
        for (let n = 0; n < count; n++) {
          const i = (frame * count + n) * 3;
          if (Number.isNaN(cloud[i])) continue;
          const p = this.project(cloud[i], cloud[i + 1], cloud[i + 2]);
          list.push([p[0], p[1], p[2], kind === "seen" && !this.seen[frame * count + n] ? "carried" : kind]);
        }
      };
      gather(this.points, this.spec.points, "seen");
      gather(this.predicted, this.spec.predicted, "predicted");
      list.sort((a, b) => b[2] - a[2]);
      const base = Math.min(5, Math.max(2.2, Math.min(this.width, this.height) / 120)) * Math.sqrt(this.zoom);
      for (const [x, y, depth, kind] of list) {
        const size = (base * 3.4) / Math.max(depth, 0.5);
        pen.globalAlpha = Math.min(1, Math.max(0.4, 1.35 - (depth - 2.4) * 0.4));
        pen.beginPath();
        if (kind === "predicted") {
          pen.moveTo(x, y - size * 1.15); pen.lineTo(x + size * 1.15, y); pen.lineTo(x, y + size * 1.15); pen.lineTo(x - size * 1.15, y);
        } else pen.arc(x, y, kind === "carried" ? size * 0.85 : size, 0, 2 * Math.PI);
        if (kind === "carried") { pen.lineWidth = 1.4; pen.strokeStyle = this.colour.carried; pen.closePath(); pen.stroke(); }
        else { pen.fillStyle = this.colour[kind]; pen.fill(); }
      }
      pen.globalAlpha = 1;
    }

    // How long one floor square is, measured at the middle of the scene.
    ruler() {
      const { pen } = this;
      const length = (this.step / this.radius) * (Math.min(this.width, this.height * 1.25) * 1.6 * this.zoom) / 3.4;
      const x = 16, y = this.height - 16;
      pen.strokeStyle = this.colour.ink;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.moveTo(x, y - 4); pen.lineTo(x, y); pen.lineTo(x + length, y); pen.lineTo(x + length, y - 4);
      pen.stroke();
      pen.fillStyle = this.colour.ink;
      pen.font = "600 12px ui-sans-serif, system-ui, sans-serif";
      pen.textAlign = "left";
      pen.textBaseline = "alphabetic";
      pen.fillText(scaleText(this.step), x, y - 9);
    }
  }

  for (const canvas of document.querySelectorAll("[data-cloud]")) new Viewer(canvas);
})();
