// Pictures open large; the pictures of one group are turned with buttons or arrow keys, and a film plays.
(() => {
  "use strict";
  const box = document.getElementById("lightbox");
  const image = box.querySelector("img"), caption = box.querySelector("p");
  const play = box.querySelector('[data-do="play"]');
  let pictures = [], at = 0, timer = 0, fps = 2;

  function show(index) {
    at = (index + pictures.length) % pictures.length;
    image.src = pictures[at].src;
    image.alt = pictures[at].alt;
    caption.textContent = `${pictures[at].alt} (${at + 1} of ${pictures.length})`;
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }

  function start() {
    stop();
    play.textContent = "Pause";
    timer = setInterval(() => show(at + 1), 1000 / fps);
  }

  function open(group, index, running) {
    pictures = [...group.querySelectorAll("button.zoom img")];
    fps = Math.min(30, Math.max(0.5, Number(group.dataset.fps) || 2));
    show(index);
    for (const button of box.querySelectorAll("[data-do]:not([data-do=close])")) button.hidden = pictures.length < 2;
    box.showModal();
    if (running) start();
  }

  for (const button of document.querySelectorAll("button.zoom")) {
    const group = button.closest("[data-group]") || button.parentElement;
    const index = [...group.querySelectorAll("button.zoom")].indexOf(button);
    button.addEventListener("click", () => open(group, index, false));
  }
  for (const button of document.querySelectorAll(".film .play")) {
    button.hidden = false;
    button.addEventListener("click", () => open(button.closest("[data-group]"), 0, true));
  }
  const does = {
    back: () => { stop(); show(at - 1); },
    next: () => { stop(); show(at + 1); },
    play: () => (timer ? stop() : start()),
    close: () => box.close(),
  };
  box.addEventListener("click", (event) => {
    const name = event.target.dataset.do;
    if (name) does[name]();
    else if (event.target === box) box.close();
  });
  box.addEventListener("close", stop);
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") does.back();
    if (event.key === "ArrowRight") does.next();
  });
})();
