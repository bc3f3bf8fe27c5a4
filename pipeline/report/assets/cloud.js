// A viewer per <canvas data-cloud="ID">: turns by itself until touched, plays over time, answers to pointer and keys.
(() => {
  "use strict";
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

  class Viewer {
    constructor(canvas) {
      this.canvas = canvas;
      this.spec = JSON.parse(document.getElementById(canvas.dataset.cloud).textContent);
      this.scene = new CloudScene(this.spec);
      this.home();
      this.turning = !still;
      this.playing = this.spec.frames > 1 && !still;
      // Some way into the motion, where its trails already tell the direction.
      this.time = (0.35 * this.spec.frames) / this.spec.fps;
      this.pointers = new Map();
      this.bar();
      this.readColours();
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.readColours(); this.draw(); });
      this.listenToPointers();
      this.listenToKeys();
      new ResizeObserver(() => this.resize()).observe(canvas);
      this.resize();
      this.near = false;
      new IntersectionObserver((entries) => {
        this.near = entries[entries.length - 1].isIntersecting;
        this.wake();
      }).observe(canvas);
    }

    home() { this.view = { yaw: 0.55, pitch: 0.42, zoom: 1 }; }

    readColours() {
      const style = getComputedStyle(this.canvas);
      this.colour = {};
      for (const name of CloudScene.COLOURS) this.colour[name] = style.getPropertyValue(`--${name}`).trim();
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

    listenToPointers() {
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
        const before = this.spread();
        this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
        if (this.pointers.size < 2) this.turn((e.clientX - last[0]) * 0.01, (e.clientY - last[1]) * 0.01);
        else if (before > 0) this.scale(this.spread() / before);
      });
      const release = (e) => {
        this.pointers.delete(e.pointerId);
        canvas.classList.toggle("held", this.pointers.size > 0);
      };
      canvas.addEventListener("pointerup", release);
      canvas.addEventListener("pointercancel", release);
      // The wheel scrolls the page until the view was clicked: a page that stops scrolling under the pointer is a trap.
      canvas.addEventListener("wheel", (e) => {
        if (document.activeElement !== canvas && !e.ctrlKey) return;
        e.preventDefault();
        this.scale(Math.exp(-e.deltaY * 0.0015));
      }, { passive: false });
    }

    listenToKeys() {
      const turns = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] };
      const zooms = { "+": 1.25, "=": 1.25, "-": 1 / 1.25 };
      this.canvas.addEventListener("keydown", (e) => {
        if (turns[e.key]) {
          this.turning = false;
          this.turn(...turns[e.key]);
        } else if (zooms[e.key]) this.scale(zooms[e.key]);
        else if (e.key === " " && this.playButton) this.playButton.click();
        else return;
        e.preventDefault();
      });
    }

    // Distance between two fingers, pixels.
    spread() {
      const [a, b] = [...this.pointers.values()];
      return a && b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
    }

    turn(dx, dy) {
      this.view.yaw -= dx;
      this.view.pitch = Math.min(1.5, Math.max(-1.5, this.view.pitch + dy));
      this.draw();
    }

    scale(factor) {
      this.turning = false;
      this.view.zoom = Math.min(12, Math.max(0.3, this.view.zoom * factor));
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

    // Draw on every frame while something moves and the canvas is on the screen; never otherwise.
    wake() {
      if (this.playButton) this.playButton.textContent = this.playing ? "Pause" : "Play";
      if (this.ticking || !this.near || !(this.turning || this.playing)) return;
      this.ticking = true;
      let last;
      const tick = (now) => {
        const passed = last === undefined ? 0 : Math.min(now - last, 100) / 1000;
        last = now;
        if (this.turning) this.view.yaw += passed * 0.35;
        // Half a second of rest at the end, so that the start of the motion is recognised.
        if (this.playing) this.time = (this.time + passed) % (this.spec.frames / this.spec.fps + 0.5);
        this.draw();
        this.ticking = this.near && (this.turning || this.playing);
        if (this.ticking) requestAnimationFrame(tick);
      };
      requestAnimationFrame(tick);
    }

    draw() {
      if (!this.pen) return;
      const frame = Math.min(this.spec.frames - 1, Math.floor(this.time * this.spec.fps + 1e-6));
      this.scene.draw(this.pen, this.width, this.height, this.view, frame, this.colour);
      if (!this.slider) return;
      this.slider.value = frame;
      this.clock.textContent = `${(frame / this.spec.fps).toFixed(2)} s`;
    }
  }

  for (const canvas of document.querySelectorAll("[data-cloud]")) new Viewer(canvas);
})();
