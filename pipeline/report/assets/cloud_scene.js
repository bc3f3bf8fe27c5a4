// Draws one frame of a moving point cloud on a 2D canvas, which every browser has, with or without a graphics card.
// Points are in the camera frame, metres: x right, y down, z forward. With both angles zero the view is the camera's.
"use strict";

class CloudScene {
  static MISSING = -32768;
  static HALF = 32500;
  static TRAIL_FRAMES = 10;
  static TRAILS = 24;
  static FONT = "ui-sans-serif, system-ui, sans-serif";
  static COLOURS = ["ink", "quiet", "floor", "ground", "seen", "carried", "predicted"];

  constructor(spec) {
    this.spec = spec;
    const bytes = Uint8Array.from(atob(spec.data), (c) => c.charCodeAt(0));
    const metres = (offset, count) => {
      const levels = new Int16Array(bytes.buffer, offset, spec.frames * count * 3);
      const { MISSING, HALF } = CloudScene;
      return Float32Array.from(levels, (v, i) => (v === MISSING ? NaN : (v + HALF) * spec.step_m + spec.low[i % 3]));
    };
    const first = spec.frames * spec.points * 6, second = spec.frames * spec.predicted * 6;
    this.points = metres(0, spec.points);
    this.predicted = metres(first, spec.predicted);
    this.seen = bytes.subarray(first + second);
    this.frameBox();
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
    this.step = CloudScene.niceStep(longest / 4);
  }

  static niceStep(raw) {
    const power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999) || raw;
  }

  // pen: a 2D context in CSS pixels. view: {yaw, pitch, zoom}. colour: name -> CSS colour, for the names in COLOURS.
  draw(pen, width, height, view, frame, colour) {
    Object.assign(this, { pen, width, height, colour });
    this.turn = { cy: Math.cos(view.yaw), sy: Math.sin(view.yaw), cp: Math.cos(view.pitch), sp: Math.sin(view.pitch) };
    this.focal = Math.min(width, height * 1.25) * 1.6 * view.zoom;
    this.zoom = view.zoom;
    pen.clearRect(0, 0, width, height);
    this.floor();
    this.axes();
    this.trails(frame);
    this.dots(frame);
    this.ruler();
  }

  // Camera frame to the screen: pixels, and the distance in multiples of the scene's radius.
  project(x, y, z) {
    const { cy, sy, cp, sp } = this.turn, [mx, my, mz] = this.centre;
    const dx = (x - mx) / this.radius, dy = (y - my) / this.radius, dz = (z - mz) / this.radius;
    const rx = dx * cy + dz * sy, rz = dz * cy - dx * sy;
    const ry = dy * cp - rz * sp, depth = 3.4 + rz * cp + dy * sp;
    const scale = this.focal / Math.max(depth, 0.1);
    return [this.width / 2 + rx * scale, this.height / 2 + ry * scale, depth];
  }

  // Multiples of the step inside the box, along one axis.
  marks(axis) {
    const first = Math.ceil(this.low[axis] / this.step), last = Math.floor(this.high[axis] / this.step);
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) * this.step);
  }

  path(corners) {
    this.pen.beginPath();
    for (const corner of corners) this.pen.lineTo(...this.project(...corner).slice(0, 2));
  }

  // A floor under the points, in squares of one step.
  floor() {
    const { pen, low, high, colour } = this, y = high[1];
    this.path([[low[0], y, low[2]], [high[0], y, low[2]], [high[0], y, high[2]], [low[0], y, high[2]]]);
    pen.fillStyle = colour.ground;
    pen.fill();
    pen.lineWidth = 1;
    pen.strokeStyle = colour.floor;
    for (const x of this.marks(0)) { this.path([[x, y, low[2]], [x, y, high[2]]]); pen.stroke(); }
    for (const z of this.marks(2)) { this.path([[low[0], y, z], [high[0], y, z]]); pen.stroke(); }
  }

  // Three axes on the corner of the floor, with coordinates in metres.
  axes() {
    const { pen, low, high, colour } = this, corner = [low[0], high[1], low[2]];
    const ends = [[high[0], high[1], low[2]], [low[0], low[1], low[2]], [low[0], high[1], high[2]]];
    pen.strokeStyle = colour.quiet;
    pen.lineWidth = 1.4;
    for (const end of ends) { this.path([corner, end]); pen.stroke(); }
    const middle = this.project(...this.centre);
    const label = (point, text, away) => {
      const p = this.project(...point), dx = p[0] - middle[0], dy = p[1] - middle[1], size = Math.hypot(dx, dy) || 1;
      const x = p[0] + (dx / size) * away, y = p[1] + (dy / size) * away;
      pen.fillText(text, Math.min(this.width - 16, Math.max(16, x)), Math.min(this.height - 9, Math.max(9, y)));
    };
    const text = (v) => String(Number(v.toFixed(4)));
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillStyle = colour.quiet;
    pen.font = `11px ${CloudScene.FONT}`;
    for (const x of this.marks(0)) label([x, high[1], low[2]], text(x), 13);
    for (const y of this.marks(1)) label([low[0], y, low[2]], text(y), 15);
    for (const z of this.marks(2)) label([low[0], high[1], z], text(z), 15);
    pen.fillStyle = colour.ink;
    pen.font = `600 12px ${CloudScene.FONT}`;
    ["x, m", "y, m", "z, m"].forEach((name, axis) => label(ends[axis], name, 30));
  }

  // Where some of the points were in the frames before, fading.
  trails(frame) {
    const { pen, points } = this, count = this.spec.points, { TRAIL_FRAMES, TRAILS } = CloudScene;
    pen.strokeStyle = this.colour.seen;
    pen.lineWidth = 1.2;
    for (let n = 0; n < count; n += Math.max(1, Math.floor(count / TRAILS))) {
      let before = null;
      for (let t = Math.max(0, frame - TRAIL_FRAMES); t <= frame; t++) {
        const i = (t * count + n) * 3;
        const at = Number.isNaN(points[i]) ? null : this.project(points[i], points[i + 1], points[i + 2]);
        if (before && at) {
          pen.globalAlpha = 0.4 * (1 - (frame - t) / (TRAIL_FRAMES + 1));
          pen.beginPath();
          pen.moveTo(before[0], before[1]);
          pen.lineTo(at[0], at[1]);
          pen.stroke();
        }
        before = at;
      }
    }
    pen.globalAlpha = 1;
  }

  // The points, far ones first: discs measured, rings carried over, diamonds predicted.
  dots(frame) {
    const list = [];
    const gather = (cloud, count, kind) => {
      for (let n = 0; n < count; n++) {
        const i = (frame * count + n) * 3;
        if (!Number.isNaN(cloud[i])) list.push([...this.project(cloud[i], cloud[i + 1], cloud[i + 2]), kind(n)]);
      }
    };
    gather(this.points, this.spec.points, (n) => (this.seen[frame * this.spec.points + n] ? "seen" : "carried"));
    gather(this.predicted, this.spec.predicted, () => "predicted");
    list.sort((a, b) => b[2] - a[2]);
    const base = Math.min(5, Math.max(2.2, Math.min(this.width, this.height) / 120)) * Math.sqrt(this.zoom);
    for (const [x, y, depth, kind] of list) {
      this.pen.globalAlpha = Math.min(1, Math.max(0.4, 1.35 - (depth - 2.4) * 0.4));
      this.dot(x, y, (base * 3.4) / Math.max(depth, 0.5), kind);
    }
    this.pen.globalAlpha = 1;
  }

  dot(x, y, size, kind) {
    const { pen, colour } = this;
    pen.beginPath();
    if (kind === "predicted") {
      const reach = size * 1.15;
      for (const [dx, dy] of [[0, -1], [1, 0], [0, 1], [-1, 0]]) pen.lineTo(x + dx * reach, y + dy * reach);
    } else {
      pen.arc(x, y, kind === "carried" ? size * 0.85 : size, 0, 2 * Math.PI);
    }
    if (kind === "carried") {
      pen.lineWidth = 1.4;
      pen.strokeStyle = colour.carried;
      pen.stroke();
    } else {
      pen.fillStyle = colour[kind];
      pen.fill();
    }
  }

  // How long one floor square is, measured at the middle of the scene.
  ruler() {
    const { pen, colour, step } = this, x = 16, y = this.height - 16;
    const length = (step / this.radius) * (this.focal / 3.4);
    pen.strokeStyle = colour.ink;
    pen.lineWidth = 2;
    pen.beginPath();
    for (const [dx, dy] of [[0, -4], [0, 0], [length, 0], [length, -4]]) pen.lineTo(x + dx, y + dy);
    pen.stroke();
    pen.fillStyle = colour.ink;
    pen.font = `600 12px ${CloudScene.FONT}`;
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    const [factor, unit] = step >= 0.995 ? [1, "m"] : step >= 0.00995 ? [100, "cm"] : [1000, "mm"];
    pen.fillText(`${Number((step * factor).toPrecision(3))} ${unit}`, x, y - 9);
  }
}
