"use strict";
// The page around the scene: cards, pointer and keys, the clock, colours. Runs after scene.js.

function build() {
  const together = $("layout").value === "together", groups = together ? [motions] : motions.map((m) => [m]);
  const stage = $("stage");
  stage.replaceChildren();
  document.querySelector(".key").hidden = together && motions.length > 1;
  panels = groups.map((shown) => {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Moving figure: ${shown.map((m) => m.caption).join("; ") || "motion"}`);
    shown.forEach((m) => {
      const line = document.createElement("p"), mark = document.createElement(together ? "i" : "b");
      if (together) mark.style.background = `hsl(${HUES[m.index % HUES.length]} 62% 52%)`;
      else mark.textContent = m.index + 1;
      line.append(...(motions.length > 1 ? [mark] : []), document.createTextNode(m.caption));
      if (m.caption || motions.length > 1) caption.append(line);
    });
    figure.append(canvas);
    if (caption.childNodes.length) figure.append(caption);
    stage.append(figure);
    const panel = { canvas, shown, together: together && motions.length > 1 };
    listen(panel);
    return panel;
  });
  resize();
}

function resize() {
  const stage = $("stage"), n = panels.length, phone = innerWidth <= 640;
  const shape = Math.max(0.3, stage.clientWidth / Math.max(stage.clientHeight, 1));
  const wanted = phone ? 1 : Math.min(n, Math.max(1, Math.round(Math.sqrt(n * shape / 0.95))));
  const columns = Math.ceil(n / Math.ceil(n / wanted));  // as many rows, evenly filled
  stage.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  stage.style.gridTemplateRows = phone ? "" : `repeat(${Math.ceil(n / columns)}, minmax(0, 1fr))`;
  panels.forEach(({ canvas }) => {
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  });
  dirty = true;
  render();  // at once: setting the size has wiped the canvas
}

function listen(panel) {
  const { canvas } = panel, fingers = new Map();
  const gap = () => { const [a, b] = fingers.values(); return Math.hypot(a.x - b.x, a.y - b.y); };
  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); fingers.set(e.pointerId, { x: e.clientX, y: e.clientY }); });
  canvas.addEventListener("pointermove", (e) => {
    const before = fingers.get(e.pointerId);
    if (!before) return hover(panel, e);
    $("tip").hidden = true;
    const pinch = fingers.size === 2 ? gap() : 0;
    fingers.set(e.pointerId, { x: e.clientX, y: e.clientY });
    if (pinch) zoom(gap() / pinch);
    else {
      view.azimuth -= (e.clientX - before.x) * 0.008;
      view.elevation = Math.min(1.5, Math.max(-0.1, view.elevation + (e.clientY - before.y) * 0.006));
    }
    dirty = true;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => fingers.delete(e.pointerId));
  canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY * 0.0012)); }, { passive: false });
  canvas.addEventListener("dblclick", reset);
}

function hover(panel, event) {
  const box = panel.canvas.getBoundingClientRect(), ratio = panel.canvas.width / Math.max(box.width, 1);
  let best = 12, name = "";
  for (const { motion, points } of panel.poses || []) motion.names.forEach((joint, i) => {
    const p = panel.project(...points.subarray(3 * i, 3 * i + 3));
    const away = Math.hypot(p[0] / ratio - event.clientX + box.left, p[1] / ratio - event.clientY + box.top);
    if (away < best) { best = away; name = joint; }
  });
  const tip = $("tip");
  tip.hidden = !name;
  tip.textContent = name.replaceAll("_", " ");
  tip.style.left = `${event.clientX}px`;
  tip.style.top = `${event.clientY}px`;
}

function zoom(factor) { view.zoom = Math.min(6, Math.max(0.2, view.zoom * factor)); dirty = true; }
function reset() { Object.assign(view, FIRST_VIEW); dirty = true; }
function seek(frame) { time = Math.min(Math.max(frame, 0), steps) / fps; dirty = true; render(); }
function setPlaying(on) {
  if (on && time >= duration) time = 0;
  playing = on; last = null; dirty = true;
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  $("play").firstElementChild.firstElementChild.setAttribute("d", on ? "M7 5h3.6v14H7zM13.4 5H17v14h-3.6z" : "M8 5l11.5 7L8 19z");
}

function readColours() {
  const style = getComputedStyle(document.documentElement), get = (name) => style.getPropertyValue(`--${name}`).trim();
  const hsl = (hex) => {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255), max = Math.max(r, g, b), c = max - Math.min(r, g, b);
    const l = max - c / 2, h = !c ? 0 : max === r ? (g - b) / c : max === g ? 2 + (b - r) / c : 4 + (r - g) / c;
    return [(60 * h + 360) % 360, c ? 100 * c / (1 - Math.abs(2 * l - 1)) : 0, 100 * l];
  };
  colours = { grid: get("grid"), shadow: get("shadow"), trail: get("trail") };
  for (const side of ["middle", "left", "right"]) colours[side] = hsl(get(side));
  dirty = true;
}

function render() {
  if (!dirty) return;
  dirty = false;
  panels.forEach(drawPanel);
  const frame = Math.floor(time * fps + 1e-6);
  $("scrub").value = frame;
  $("scrub").setAttribute("aria-valuetext", `${time.toFixed(2)} seconds`);
  $("time").textContent = `${time.toFixed(2)} / ${duration.toFixed(2)} s · frame ${frame + 1}/${steps + 1}`;
  Object.assign(document.body.dataset, { ready: "true", frame });
}

function tick(now) {
  if (playing) {
    if (last !== null) time += Math.min(now - last, 100) / 1000 * Number($("speed").value);
    last = now;
    if (time >= duration) {
      if ($("loop").checked) time %= duration;
      else { time = duration; setPlaying(false); }
    }
    dirty = true;
  }
  render();
  requestAnimationFrame(tick);
}

function openHash() {
  const frame = /frame=(\d+)/.exec(location.hash);
  if (frame) { setPlaying(false); seek(Number(frame[1])); }
}

motions.forEach((m, index) => { m.index = index; });
window.lmm = {
  ready: true, motions, numFrames, seek, view,
  get frame() { return Math.floor(time * fps + 1e-6); },
  play: () => setPlaying(true),
  pause: () => setPlaying(false),
};
$("summary").textContent = `${motions.length} motion${motions.length > 1 ? "s" : ""} · ${+fps.toFixed(2)} fps · ${duration.toFixed(1)} s`;
$("layoutLabel").hidden = motions.length < 2;
$("scrub").max = steps;
$("scrub").addEventListener("input", (e) => { setPlaying(false); seek(Number(e.target.value)); });
$("play").addEventListener("click", () => setPlaying(!playing));
$("layout").addEventListener("change", build);
$("reset").addEventListener("click", reset);
for (const id of ["follow", "trail"]) $(id).addEventListener("change", () => { dirty = true; });
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("select, input, button") && e.key !== "Escape") return;
  if (e.key === " ") { e.preventDefault(); setPlaying(!playing); }
  else if (e.key === "ArrowLeft" || e.key === "ArrowRight") {
    e.preventDefault(); setPlaying(false); seek(lmm.frame + (e.key === "ArrowLeft" ? -1 : 1));
  } else if (e.key === "Home") seek(0);
  else if (e.key === "End") seek(steps);
  else if (e.key.toLowerCase() === "r") reset();
  else if (e.key === "+" || e.key === "-") zoom(e.key === "+" ? 1.15 : 1 / 1.15);
});
addEventListener("hashchange", openHash);
new ResizeObserver(resize).observe($("stage"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);
readColours();
setPlaying(true);
build();
openHash();
render();
requestAnimationFrame(tick);
