// Line charts: a figure per <div class="plot" data-chart="ID">, drawn as SVG from the JSON in the element ID.
(() => {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";
  const DASHES = ["", "7 4", "2 4", "9 3 2 3", "4 3", "12 4", "1 3", "6 2 1 2"];

  function svg(tag, attributes, parent, text) {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }

  function html(tag, className, parent, text) {
    const node = document.createElement(tag);
    node.className = className;
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }

  function format(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  }

  function niceTicks(low, high, wanted) {
    const raw = (high - low) / Math.max(wanted, 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999) || raw;
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++) {
      ticks.push(Number((i * step).toPrecision(12)));
    }
    return ticks;
  }

  function logTicks(low, high) {
    const decades = Math.log10(high / low);
    const marks = decades > 2.5 ? [1] : decades > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    const stride = Math.max(1, Math.ceil(decades / 6));
    const ticks = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += stride) {
      for (const m of marks) if (m * 10 ** e >= low && m * 10 ** e <= high) ticks.push(m * 10 ** e);
    }
    return ticks.length > 1 ? ticks : niceTicks(low, high, 4);
  }

  function domain(values, log, tight) {
    let low = Infinity, high = -Infinity;
    for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
    if (low > high) return log ? [0.1, 10] : [0, 1];
    if (log) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.04, high * (high / low) ** 0.04];
    if (tight && low < high) return [low, high];
    if (low >= 0 && low < 0.5 * high) low = 0;
    if (low === high) return [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    return [low === 0 ? 0 : low - (high - low) * 0.05, high + (high - low) * 0.05];
  }

  class Chart {
    constructor(host) {
      this.host = host;
      this.spec = JSON.parse(document.getElementById(host.dataset.chart).textContent);
      this.series = this.spec.series.map((line, index) => ({ ...line, index, hidden: false }));
      const drawable = (y) => y !== null && y > 0;
      this.canLog = this.series.some((s) => s.y.some(drawable));
      this.log = Boolean(this.spec.log_y) && this.canLog;
      this.legend();
      this.area = html("div", "area", host);
      this.area.tabIndex = 0;
      this.area.setAttribute("role", "img");
      this.area.setAttribute("aria-label", `Line chart: ${this.spec.title}. Left and right arrow keys read values.`);
      this.tip = html("div", "tip", host);
      this.tip.hidden = true;
      this.area.addEventListener("pointermove", (e) => this.point(e.clientX - this.area.getBoundingClientRect().left));
      this.area.addEventListener("pointerdown", (e) => this.point(e.clientX - this.area.getBoundingClientRect().left));
      this.area.addEventListener("pointerleave", () => this.unpoint());
      this.area.addEventListener("blur", () => this.unpoint());
      this.area.addEventListener("keydown", (e) => this.key(e));
      this.draw();
      let width = this.area.clientWidth;
      new ResizeObserver(() => {
        if (this.area.clientWidth !== width) { width = this.area.clientWidth; this.draw(); }
      }).observe(this.area);
    }

    legend() {
      const row = html("div", "legend", this.host);
      this.series.forEach((line) => {
        const button = html("button", "", row);
        button.type = "button";
        button.setAttribute("aria-pressed", "true");
        const swatch = svg("svg", { viewBox: "0 0 22 8", width: 22, height: 8, "aria-hidden": "true" }, button);
        svg("line", { x1: 1, x2: 21, y1: 4, y2: 4, ...this.stroke(line) }, swatch);
        button.append(line.y.some((y) => y !== null) ? line.name : `${line.name} (no finite value)`);
        button.addEventListener("click", () => {
          line.hidden = !line.hidden;
          button.setAttribute("aria-pressed", String(!line.hidden));
          this.draw();
        });
      });
      if (!this.canLog) return;
      const scale = html("button", "scale", row, "log scale");
      scale.type = "button";
      scale.setAttribute("aria-pressed", String(this.log));
      scale.addEventListener("click", () => {
        this.log = !this.log;
        scale.setAttribute("aria-pressed", String(this.log));
        this.draw();
      });
    }

    // A dashed line tells short curves apart without colour; on a long noisy one it would only be noise.
    stroke(line) {
      const dash = line.x.length <= 60 ? DASHES[line.index % DASHES.length] : "";
      return { class: `line c${line.index % 8}`, ...(dash ? { "stroke-dasharray": dash } : {}) };
    }

    draw() {
      this.unpoint();
      this.area.replaceChildren();
      const width = Math.max(this.area.clientWidth, 240);
      const height = Math.round(Math.min(320, Math.max(220, width * 0.52)));
      const drawn = (y) => y !== null && (!this.log || y > 0);
      const shown = this.series.filter((s) => !s.hidden);
      const [x0, x1] = domain(shown.flatMap((s) => s.x.filter((_, i) => drawn(s.y[i]))), false, true);
      const [y0, y1] = domain(shown.flatMap((s) => s.y.filter(drawn)), this.log);
      const yTicks = this.log ? logTicks(y0, y1) : niceTicks(y0, y1, height / 56);
      const left = 32 + 7.2 * Math.max(2, ...yTicks.map((t) => format(t).length)), right = 14, top = 10, bottom = 42;
      const toX = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
      const f = this.log ? Math.log : (v) => v;
      const toY = (y) => height - bottom - ((f(y) - f(y0)) / (f(y1) - f(y0))) * (height - top - bottom);
      const frame = { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" };
      const picture = svg("svg", frame, this.area);
      const label = { "text-anchor": "middle", class: "label" }, middle = (top + height - bottom) / 2;
      for (const t of yTicks) {
        svg("line", { x1: left, x2: width - right, y1: toY(t), y2: toY(t), class: "grid" }, picture);
        svg("text", { x: left - 7, y: toY(t) + 4, "text-anchor": "end" }, picture, format(t));
      }
      for (const t of niceTicks(x0, x1, (width - left) / 90)) {
        svg("line", { x1: toX(t), x2: toX(t), y1: height - bottom, y2: height - bottom + 5, class: "axis" }, picture);
        svg("text", { x: toX(t), y: height - bottom + 19, "text-anchor": "middle" }, picture, format(t));
      }
      svg("line", { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "axis" }, picture);
      svg("text", { x: (left + width - right) / 2, y: height - 5, ...label }, picture, this.spec.x_label);
      svg("text", { x: 12, y: middle, transform: `rotate(-90 12 ${middle})`, ...label }, picture, this.spec.y_label);
      for (const line of shown) {
        let path = "", open = false;
        line.x.forEach((x, i) => {
          if (!drawn(line.y[i])) { open = false; return; }
          const alone = !open && (i + 1 === line.x.length || !drawn(line.y[i + 1]));
          path += `${open ? "L" : "M"}${toX(x).toFixed(1)} ${toY(line.y[i]).toFixed(1)}`;
          // A value between two gaps has no line of its own.
          if (alone || line.x.length <= 24) {
            svg("circle", { cx: toX(x), cy: toY(line.y[i]), r: 3, class: `dot c${line.index % 8}` }, picture);
          }
          open = true;
        });
        if (path) svg("path", { d: path, ...this.stroke(line) }, picture);
      }
      this.cursor = svg("line", { y1: top, y2: height - bottom, class: "cursor", visibility: "hidden" }, picture);
      const xs = new Set();
      for (const s of shown) s.x.forEach((x, i) => drawn(s.y[i]) && xs.add(x));
      this.view = { toX, xs: [...xs].sort((a, b) => a - b), shown, drawn, width };
    }

    point(pixel) {
      const { toX, xs } = this.view;
      if (!xs.length) return;
      let best = 0;
      for (let i = 1; i < xs.length; i++) if (Math.abs(toX(xs[i]) - pixel) < Math.abs(toX(xs[best]) - pixel)) best = i;
      this.show(best);
    }

    show(index) {
      const { toX, xs, shown, drawn, width } = this.view;
      this.at = index;
      const x = xs[index];
      this.cursor.setAttribute("x1", toX(x));
      this.cursor.setAttribute("x2", toX(x));
      this.cursor.setAttribute("visibility", "visible");
      this.tip.replaceChildren();
      html("div", "x", this.tip, `${this.spec.x_label} ${format(x)}`);
      for (const line of shown) {
        let near = -1;
        line.x.forEach((value, i) => {
          if (drawn(line.y[i]) && (near < 0 || Math.abs(value - x) < Math.abs(line.x[near] - x))) near = i;
        });
        if (near < 0) continue;
        const row = html("div", `c${line.index % 8}`, this.tip);
        html("span", "", row, line.name);
        html("b", "", row, format(line.y[near]));
      }
      this.tip.hidden = false;
      const room = this.tip.offsetWidth + 14;
      this.tip.style.left = `${Math.max(0, toX(x) + room > width ? toX(x) - room : toX(x) + 14)}px`;
      this.tip.style.top = `${this.area.offsetTop + 12}px`;
    }

    unpoint() {
      this.tip.hidden = true;
      this.at = undefined;
      if (this.cursor) this.cursor.setAttribute("visibility", "hidden");
    }

    key(event) {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") this.unpoint();
      if (!step || !this.view.xs.length) return;
      event.preventDefault();
      const last = this.view.xs.length - 1;
      this.show(this.at === undefined ? (step > 0 ? 0 : last) : Math.min(last, Math.max(0, this.at + step)));
    }
  }

  for (const host of document.querySelectorAll("[data-chart]")) new Chart(host);
})();
