"use strict";
// Motions on canvases: one camera for all, one clock in seconds, capsules sorted by depth. No library.
window.addEventListener("error", (event) => { document.body.dataset.error = event.message; });

const $ = (id) => document.getElementById(id);
const FIRST_VIEW = { azimuth: 0.6, elevation: 0.22, zoom: 1 };
const HUES = [208, 24, 145, 280, 350, 60];  // one a motion when all stand in one scene
const FOCAL = 1.75;  // of the canvas's shorter side
const motions = JSON.parse($("data").textContent).map(unpack);
const numFrames = Math.max(...motions.map((m) => m.length));
const fps = Math.max(...motions.map((m) => m.fps));
const duration = Math.max(...motions.map((m) => (m.length - 1) / m.fps), 1e-6);
const steps = Math.round(duration * fps);
const view = { ...FIRST_VIEW };
let time = 0, playing = true, last = null, panels = [], colours = {}, dirty = true;

function unpack(motion) {
  const floats = ({ step, data }) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)), read = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => read.getInt16(2 * i, true) * step);
  };
  const points = floats(motion.points), focus = floats(motion.focus);
  return { ...motion, points, focus, length: focus.length / 3 };
}

// Positions between frames, so that 20 fps move smoothly on any screen.
function sample(values, width, motion, seconds) {
  const at = Math.min(Math.max(seconds * motion.fps, 0), motion.length - 1), f = Math.floor(at + 1e-6);
  const mix = Math.max(at - f, 0), a = f * width, b = Math.min(f + 1, motion.length - 1) * width;
  return Float32Array.from({ length: width }, (_, i) => values[a + i] * (1 - mix) + values[b + i] * mix);
}

function camera(canvas, target, reach) {
  const { azimuth: a, elevation: e } = view, narrow = Math.max(1, 0.62 * canvas.height / canvas.width);
  const right = [Math.cos(a), 0, -Math.sin(a)];
  const towards = [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
  const up = [-Math.sin(a) * Math.sin(e), Math.cos(e), -Math.cos(a) * Math.sin(e)];
  const distance = reach * narrow / view.zoom, focal = FOCAL * canvas.height;
  const dot = (u, x, y, z) => u[0] * x + u[1] * y + u[2] * z;
  return (x, y, z) => {
    x -= target[0]; y -= target[1]; z -= target[2];
    const depth = distance - dot(towards, x, y, z), scale = depth > 0.15 ? focal / depth : 0;
    return [canvas.width / 2 + dot(right, x, y, z) * scale, canvas.height / 2 - dot(up, x, y, z) * scale, scale];
  };
}

function drawPanel(panel) {
  const { canvas, shown } = panel, ctx = canvas.getContext("2d"), height = Math.max(...shown.map((m) => m.height));
  const poses = shown.map((m) => ({ motion: m, points: sample(m.points, 3 * m.numPoints, m, time) }));
  const centre = (at) => {
    const all = shown.map((m) => sample(m.focus, 3, m, at));
    return [0, 2].map((axis) => (Math.min(...all.map((p) => p[axis])) + Math.max(...all.map((p) => p[axis]))) / 2);
  };
  const spread = (list) => Math.hypot(...[0, 2].map((i) => Math.max(...list.map((p) => p[i])) - Math.min(...list.map((p) => p[i]))));
  let target, reach = 2.45 * height;
  if ($("follow").checked) {
    const [x, z] = centre(time);
    target = [x, 0.53 * height, z];
    reach += 1.1 * spread(shown.map((m) => sample(m.focus, 3, m, time)));
  } else {  // the whole path in the picture
    const path = shown.flatMap((m) => Array.from({ length: m.length }, (_, f) => m.focus.subarray(3 * f, 3 * f + 3)));
    const mid = (i) => (Math.min(...path.map((p) => p[i])) + Math.max(...path.map((p) => p[i]))) / 2;
    target = [mid(0), 0.5 * height, mid(2)];
    reach += spread(path);
  }
  const project = panel.project = camera(canvas, target, reach);
  ctx.clearRect(0, 0, canvas.width, canvas.height);
  drawFloor(ctx, project, target, Math.max(2.6, 0.9 * reach));
  if ($("trail").checked) shown.forEach((m) => drawTrail(ctx, project, m, panel.together));
  poses.forEach((pose) => drawShadow(ctx, project, pose));
  const limbs = poses.flatMap(({ motion, points }) => motion.bones.map(([a, b], i) => {
    const p = project(...points.subarray(3 * a, 3 * a + 3)), q = project(...points.subarray(3 * b, 3 * b + 3));
    return { p, q, radii: motion.radii[i], tone: tone(motion, motion.sides[i], panel.together) };
  }));
  limbs.sort((u, v) => u.p[2] + u.q[2] - v.p[2] - v.q[2]);
  limbs.forEach((limb) => drawLimb(ctx, limb));
  panel.poses = poses;
}

function tone(motion, side, together) {  // [hue, saturation, lightness]
  if (!together) return colours[["middle", "left", "right"][side]];
  return [HUES[motion.index % HUES.length], 62, [52, 62, 42][side]];
}

function drawFloor(ctx, project, [cx, , cz], reach) {
  const step = 0.5 * 2 ** Math.ceil(Math.log2(Math.max(reach / 7, 1))), n = Math.ceil(reach / step);
  const x0 = Math.round(cx / step) * step, z0 = Math.round(cz / step) * step;
  ctx.strokeStyle = colours.grid;
  ctx.lineWidth = devicePixelRatio;
  for (let i = -n; i <= n; i++) for (let k = -n; k < n; k++) for (const flip of [false, true]) {
    const [x, z, u, v] = flip ? [k, i, k + 1, i] : [i, k, i, k + 1];
    const fade = 1 - Math.hypot((x + u) / 2 * step + x0 - cx, (z + v) / 2 * step + z0 - cz) / reach;
    if (fade <= 0) continue;
    const p = project(x0 + x * step, 0, z0 + z * step), q = project(x0 + u * step, 0, z0 + v * step);
    if (!p[2] || !q[2]) continue;
    ctx.globalAlpha = Math.min(1, 1.3 * fade);
    ctx.beginPath(); ctx.moveTo(p[0], p[1]); ctx.lineTo(q[0], q[1]); ctx.stroke();
  }
  ctx.globalAlpha = 1;
}

function drawTrail(ctx, project, motion, together) {
  const now = Math.min(time * motion.fps, motion.length - 1);
  ctx.strokeStyle = together ? `hsl(${HUES[motion.index % HUES.length]} 62% 50%)` : colours.trail;
  ctx.lineJoin = ctx.lineCap = "round";
  ctx.lineWidth = 2 * devicePixelRatio;
  for (const [from, to, alpha] of [[0, motion.length - 1, 0.25], [0, now, 0.85]]) {
    ctx.globalAlpha = alpha;
    ctx.beginPath();
    for (let f = from; f <= to; f++) {
      const p = project(motion.focus[3 * f], 0.002, motion.focus[3 * f + 2]);
      if (p[2]) ctx.lineTo(p[0], p[1]);
    }
    ctx.stroke();
  }
  ctx.globalAlpha = 1;
}

function drawShadow(ctx, project, { motion, points }) {  // all limbs in one fill, so overlaps do not darken
  const flat = (i) => project(points[3 * i] - 0.35 * points[3 * i + 1], 0, points[3 * i + 2] - 0.3 * points[3 * i + 1]);
  const flatten = Math.sqrt(Math.max(0.05, Math.abs(Math.sin(view.elevation))));
  ctx.beginPath();
  motion.bones.forEach(([a, b], i) => {
    const p = flat(a), q = flat(b), r = motion.radii[i].map((radius, k) => radius * [p, q][k][2] * flatten);
    outline(ctx, p, q, r[0], r[1]);
  });
  ctx.fillStyle = colours.shadow;
  ctx.globalAlpha = 0.26;
  ctx.fill();
  ctx.globalAlpha = 1;
}

// Path of a capsule whose ends differ, with true tangents; always the same way round.
function outline(ctx, p, q, ra, rb) {
  const length = Math.hypot(q[0] - p[0], q[1] - p[1]), angle = Math.atan2(q[1] - p[1], q[0] - p[0]);
  if (length <= Math.abs(ra - rb) + 1e-6) {  // one end hides the other
    const [c, r] = ra > rb ? [p, ra] : [q, rb];
    ctx.moveTo(c[0] + r, c[1]);
    ctx.arc(c[0], c[1], r, 0, 2 * Math.PI);
    return;
  }
  const tangent = Math.acos((ra - rb) / length);
  ctx.moveTo(p[0] + ra * Math.cos(angle + tangent), p[1] + ra * Math.sin(angle + tangent));
  ctx.arc(p[0], p[1], ra, angle + tangent, angle - tangent + 2 * Math.PI);
  ctx.arc(q[0], q[1], rb, angle - tangent, angle + tangent);
  ctx.closePath();
}

function drawLimb(ctx, { p, q, radii, tone: [h, s, l] }) {
  const ra = radii[0] * p[2], rb = radii[1] * q[2];
  if (!ra || !rb) return;
  const thick = Math.max(ra, rb), x = (p[0] + q[0]) / 2, y = (p[1] + q[1]) / 2;
  let dx = q[1] - p[1], dy = p[0] - q[0];  // across the limb, turned towards the lamp at the upper right
  const norm = Math.hypot(dx, dy);
  if (norm < 0.5 * thick) { dx = 0.5; dy = -0.86; } else { dx /= norm; dy /= norm; }
  if (0.45 * dx - 0.9 * dy < 0) { dx = -dx; dy = -dy; }
  const shade = ctx.createLinearGradient(x + dx * thick, y + dy * thick, x - dx * thick, y - dy * thick);
  shade.addColorStop(0, `hsl(${h} ${s}% ${l + 8}%)`);
  shade.addColorStop(0.28, `hsl(${h} ${s}% ${Math.min(l + 20, 88)}%)`);
  shade.addColorStop(0.62, `hsl(${h} ${s}% ${l}%)`);
  shade.addColorStop(1, `hsl(${h} ${s}% ${0.62 * l}%)`);
  ctx.beginPath();
  outline(ctx, p, q, ra, rb);
  ctx.fillStyle = shade;
  ctx.fill();
  ctx.strokeStyle = `hsl(${h} ${0.8 * s}% ${0.45 * l}% / 0.55)`;
  ctx.lineWidth = 0.8 * devicePixelRatio;
  ctx.stroke();
}
