"use strict";
// The page's own script: it unpacks the payload, hands it to plotly.js, and keeps one selection of rows.
// Text from the data reaches the page through textContent or text() only.

// Petroff's ten colors (arXiv 2107.02270), chosen to be told apart with every kind of color blindness.
const COLORS = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"];
const payload = JSON.parse(document.getElementById("payload").textContent);
const $ = (id) => document.getElementById(id);
const all = (query) => Array.from(document.querySelectorAll(query));
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const color = (k) => COLORS[k % COLORS.length];
const count = new Intl.NumberFormat("en").format; // the formatter itself is slow to make
const redraws = []; // what follows a change of light and dark

// ---- unpacking -----------------------------------------------------------------------------------------------------

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64), out = new Uint8Array(text.length);
  for (let i = 0; i < out.length; i++) out[i] = text.charCodeAt(i);
  return out;
}

async function gunzip(base64) {
  const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// A packed array as a typed array; one with low and high as floats, its level 65535 as NaN.
async function unpack(packed) {
  const buffer = await gunzip(packed.data);
  if (packed.kind === "json") return JSON.parse(new TextDecoder().decode(buffer));
  const levels = new globalThis[packed.kind + "Array"](buffer);
  if (packed.low === undefined) return levels;
  const step = (packed.high - packed.low) / 65534;
  return Float32Array.from(levels, (v) => (v === 65535 ? NaN : packed.low + step * v));
}

// Text for plotly, which reads a few tags and entities in text.
function text(value, limit = 26) {
  const cut = value.length > limit ? value.slice(0, limit - 1) + "\u2026" : value;
  return cut.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// ---- light and dark ------------------------------------------------------------------------------------------------

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  redraws.forEach((redraw) => redraw());
}
setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
all(".swatch[data-k]").forEach((swatch) => { swatch.style.background = color(+swatch.dataset.k); });

// ---- charts --------------------------------------------------------------------------------------------------------

function look() {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
    margin: { l: 50, r: 12, t: 36, b: 40 }, xaxis: { ...axis }, yaxis: { ...axis },
    hoverlabel: { bgcolor: css("--paper"), font: { color: css("--ink") } },
  };
}

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const CONFIG = { responsive: true, displayModeBar: false };

const isWide = (chart) => chart.series.length > 6; // then its legend stands beside it
const SCALES = { linear: {}, log: { type: "log", dtick: "D2", tickformat: "~g" }, zero: { rangemode: "tozero" } };

function line(chart) {
  const layout = look();
  layout.title = { text: text(chart.title, 60), font: { size: 13 }, x: 0.01, xanchor: "left" };
  Object.assign(layout.xaxis, { title: { text: text(chart.x_title), font: { size: 12 } } });
  Object.assign(layout.yaxis, { title: { text: text(chart.y_title), font: { size: 12 } }, ...SCALES[chart.scale] });
  if (chart.range) layout.yaxis.range = chart.range;
  const n = chart.series.length, long = chart.series.some((s) => s.name.length > 24);
  layout.showlegend = n > 1;
  layout.legend = { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 11 } };
  if (isWide(chart)) layout.legend = innerWidth > 860 ? { font: { size: 11 } } : { orientation: "h", x: 0, y: -0.45, yanchor: "top", font: { size: 10 } };
  layout.margin.t = 40 + (n > 1 && !isWide(chart) ? 19 * Math.ceil(long ? n : n / 2) : 0);
  layout.title.y = 1;
  layout.title.yanchor = "top";
  layout.title.pad = { t: 8 };
  layout.shapes = chart.marks.map((m) => ({ type: "line", x0: m.x, x1: m.x, y0: 0, y1: 1, yref: "paper", line: { color: css("--soft"), width: 1, dash: "dot" } }));
  layout.annotations = chart.marks.map((m) => ({ x: m.x, y: 1, yref: "paper", yanchor: "bottom", xanchor: "left", showarrow: false, text: text(m.text), font: { size: 10, color: css("--soft") } }));
  const traces = chart.series.map((s, i) => ({
    x: s.x, y: s.y, name: text(s.name, 40), mode: s.ends || s.x.length < 2 ? "markers" : "lines",
    line: { color: color(i), width: 2, dash: DASHES[Math.floor(i / COLORS.length) % 5] },
  }));
  return [traces, layout];
}

const DIVERGING = [[0, "#b3420a"], [0.5, "#f2f2f2"], [1, "#1f62c4"]];

function heat() {
  const { x, z } = payload.heat, layout = look(), most = Math.max(1e-9, ...z.flat().map(Math.abs));
  layout.height = 120 + 22 * z.length;
  Object.assign(layout.margin, { t: 8, b: 90 });
  // Categories by number: two columns may be cut to one text.
  Object.assign(layout.xaxis, { tickvals: x.map((_, i) => i), ticktext: x.map((name) => text(name, 16)), tickangle: -40, showgrid: false });
  Object.assign(layout.yaxis, { tickvals: z.map((_, k) => k), ticktext: z.map((_, k) => String(k)), autorange: "reversed", showgrid: false });
  return [[{ type: "heatmap", z, zmin: -most, zmax: most, colorscale: DIVERGING, colorbar: { thickness: 10 }, hovertemplate: "cluster %{y}: %{z:+.2f}<extra></extra>", xgap: 1, ygap: 1 }], layout];
}

function overlap() {
  const layout = look(), z = payload.overlap.map((line, a) => line.map((v, b) => (a === b || v <= 0 ? null : Math.log10(v))));
  layout.height = Math.max(220, 70 + 22 * z.length);
  layout.margin.t = 8;
  Object.assign(layout.xaxis, { dtick: z.length > 20 ? 5 : 1, showgrid: false, title: { text: "cluster", font: { size: 12 } } });
  Object.assign(layout.yaxis, { dtick: z.length > 20 ? 5 : 1, showgrid: false, autorange: "reversed" });
  return [[{ type: "heatmap", z, zmin: -6, zmax: -1, colorscale: "Cividis", colorbar: { thickness: 10, title: { text: "log\u2081\u2080", font: { size: 12 } } }, hovertemplate: "%{y} and %{x}: 10<sup>%{z:.1f}</sup><extra></extra>", xgap: 1, ygap: 1 }], layout];
}

// Charts are drawn when they come near the window, so that the map never waits for them.
function draw(div, figure) {
  const now = () => Plotly.react(div, ...figure(), CONFIG);
  new IntersectionObserver((seen, observer) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    now();
    redraws.push(now);
  }, { rootMargin: "300px" }).observe(div);
}

function drawCharts() {
  for (const chart of payload.charts) {
    const div = element("div", { className: isWide(chart) ? "chart wide" : "chart", role: "img", ariaLabel: chart.title });
    $("charts").append(div);
    draw(div, () => line(chart));
  }
  all("[data-chart]").forEach((div) => draw(div, div.dataset.chart === "heat" ? heat : overlap));
}

// ---- the map -------------------------------------------------------------------------------------------------------

const map = { plane: 0, color: "cluster", parts: [], selected: null, from: "", pinned: null, drag: "lasso" };

async function loadMap() {
  const names = ["cluster", "second", "confidence", "score", "label", "rows", "names", "values", "place"];
  const jobs = names.filter((name) => payload[name]).map(async (name) => { map[name] = await unpack(payload[name]); });
  jobs.push(...payload.maps.map(async (plane) => { plane.x = await unpack(plane.x); plane.y = await unpack(plane.y); }));
  await Promise.all(jobs);
}

const rowOf = (i) => (map.rows ? map.rows[i] : i);

function pointOf(row) {
  if (!map.rows) return row < payload.n ? row : -1;
  let low = 0, high = payload.n;
  while (low < high) { const middle = (low + high) >> 1; if (map.rows[middle] < row) low = middle + 1; else high = middle; }
  return map.rows[low] === row ? low : -1;
}

function groups() {
  return map.color === "label" ? { of: map.label, n: payload.classes.length, name: (c) => payload.classes[c] }
    : { of: map.cluster, n: payload.n_clusters, name: String };
}

// The points in parts of one color each, as the groups share ten: plotly draws these many times faster than points
// with a color of their own. On a scale (confidence, score) the points without a value are a part, and lie below.
function split() {
  const { x, y } = payload.maps[map.plane], lists = [];
  const of = map.color === "cluster" || map.color === "label" ? groups().of : null, values = map[map.color];
  for (let i = 0; i < payload.n; i++) (lists[of ? of[i] % COLORS.length : +!Number.isNaN(values[i])] ??= []).push(i);
  const marker = (points, k) => (of ? { color: color(k) } : k ? scale(Array.from(points, (i) => values[i])) : { color: css("--void") });
  map.parts = lists.map((points, k) => ({ points, marker: marker(points, k), x: Float32Array.from(points, (i) => x[i]), y: Float32Array.from(points, (i) => y[i]) })).filter(Boolean);
}

function scale(values) {
  const sorted = Float32Array.from(values).sort(), at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const [cmin, cmax, title] = map.color === "score" ? [at(0.01), at(0.99), "log p(x)"] : [0, 1, "max q(y|x)"];
  const colorscale = ["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"].map((c, i) => [i / 5, c]);
  return { color: values, cmin, cmax, colorscale, showscale: true, colorbar: { thickness: 10, len: 0.6, title: { text: title, side: "right" } }, ...(values.length < payload.n ? { size: 6 } : {}) };
}

function median(values) {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

// The number of every cluster in its middle: color is never the only sign.
function numbers() {
  const { x, y } = payload.maps[map.plane], members = Array.from({ length: payload.n_clusters }, () => []);
  const stride = Math.max(1, Math.floor(payload.n / 20000));
  for (let i = 0; i < payload.n; i += stride) members[map.cluster[i]].push(i);
  const shown = members.flatMap((rows, k) => (rows.length && payload.n_clusters <= 100 ? [[rows, k]] : []));
  return shown.map(([rows, k]) => ({
    x: median(rows.map((i) => x[i])), y: median(rows.map((i) => y[i])), text: String(k), showarrow: false, captureevents: false,
    font: { size: 13, color: css("--ink"), weight: 700 }, bgcolor: css("--paper"), opacity: 0.85, borderpad: 2,
  }));
}

// A ring around the pinned point.
function ring() {
  if (map.pinned === null) return [];
  const { x, y } = payload.maps[map.plane];
  return [{ type: "circle", xref: "x", yref: "y", xsizemode: "pixel", ysizemode: "pixel", xanchor: x[map.pinned], yanchor: y[map.pinned], x0: -9, x1: 9, y0: -9, y1: 9, line: { color: css("--ink"), width: 3 } }];
}

function mapFigure() {
  const { n } = payload, { name } = payload.maps[map.plane], layout = look();
  const bare = { visible: false, fixedrange: false };
  Object.assign(layout, { margin: { l: 4, r: 4, t: 4, b: 4 }, showlegend: false, hovermode: "closest", dragmode: map.drag, uirevision: name, annotations: numbers(), shapes: ring(), xaxis: bare, yaxis: { ...bare, scaleanchor: name === "PCA" ? undefined : "x" }, selections: map.from === "lasso" ? $("plot").layout.selections : [], selectionrevision: `${name} ${map.from}` });
  const shared = { size: n > 30000 ? 3 : n > 5000 ? 4 : 6, opacity: n > 30000 ? 0.7 : 0.85 };
  const chosen = map.selected && new Uint8Array(n);
  if (chosen) for (const i of map.selected) chosen[i] = 1;
  const traces = map.parts.map(({ points, marker, x, y }) => ({
    type: "scattergl", mode: "markers", x, y, marker: { ...shared, ...marker }, hoverinfo: "none", unselected: { marker: { opacity: n > 5000 ? 0.05 : 0.12 } },
    selectedpoints: chosen ? Array.from(points.keys()).filter((at) => chosen[points[at]]) : undefined,
  }));
  return [traces, layout, { ...CONFIG, scrollZoom: true }];
}

const drawMap = () => Plotly.react("plot", ...mapFigure());
const recolor = () => { split(); return drawMap(); };
const pointAt = (event) => map.parts[event.curveNumber].points[event.pointNumber];

// ---- one row -------------------------------------------------------------------------------------------------------

const pictures = new Map();

function picture(sprite) {
  if (!pictures.has(sprite)) {
    const image = new Image();
    image.src = payload.sprites.urls[sprite];
    pictures.set(sprite, image.decode().then(() => image));
  }
  return pictures.get(sprite);
}

async function paint(canvas, i) {
  const { columns, height, width, n } = payload.sprites, place = map.place[i];
  Object.assign(canvas, { width, height });
  canvas.style.imageRendering = width < 13 ? "pixelated" : "auto";
  if (place >= n) return canvas.remove();
  const at = place % (columns * columns);
  canvas.getContext("2d").drawImage(await picture(Math.floor(place / (columns * columns))), (at % columns) * width, Math.floor(at / columns) * height, width, height, 0, 0, width, height);
  canvas.dataset.row = rowOf(i);
}

function describe(i) {
  const list = element("dl"), add = (name, value) => list.append(element("dt", { textContent: name, title: name }), element("dd", { textContent: value }));
  add("row", rowOf(i));
  if (map.names) add("name", map.names[i]);
  add("cluster", map.cluster[i]);
  add("q(y|x)", map.confidence[i].toFixed(3) + (map.confidence[i] < 0.9995 ? `, then ${map.second[i]}` : ""));
  if (map.label) add("label", payload.classes[map.label[i]]);
  if (map.score && !Number.isNaN(map.score[i])) add("log p(x)", map.score[i].toFixed(1));
  const c = payload.columns ? payload.columns.length : 0;
  for (let d = 0; d < c; d++) add(payload.columns[d], +map.values[i * c + d].toPrecision(payload.digits[d]));
  return list;
}

function showRow(i) {
  const parts = [describe(i)];
  if (payload.sprites) {
    const canvas = element("canvas", { role: "img", ariaLabel: `row ${rowOf(i)}` });
    parts.unshift(canvas);
    paint(canvas, i);
  }
  $("card").replaceChildren(...parts);
}

function pin(row) {
  const i = pointOf(row);
  if (i < 0) {
    $("card").replaceChildren(element("p", { className: "note", textContent: `Row ${row} is not on the map.` }));
    return;
  }
  map.pinned = i;
  $("row").value = row;
  showRow(i);
  Plotly.relayout("plot", { shapes: ring() });
}

// ---- the selection -------------------------------------------------------------------------------------------------

function where(condition) {
  const found = [];
  for (let i = 0; i < payload.n; i++) if (condition(i)) found.push(i);
  return found;
}

function select(points, from = "") {
  map.selected = points && points.length ? points : null;
  map.from = map.selected ? from : "";
  drawMap();
  tellSelection();
  all("#legend button").forEach((button) => button.setAttribute("aria-pressed", map.from === `${map.color === "label" ? "class" : "cluster"} ${button.dataset.g}`));
}

function tellSelection() {
  if (!map.selected) return $("selection").replaceChildren();
  const sizes = new Map();
  for (const i of map.selected) sizes.set(map.cluster[i], (sizes.get(map.cluster[i]) ?? 0) + 1);
  const most = Array.from(sizes).sort((a, b) => b[1] - a[1]).slice(0, 4).map(([k, n]) => `${k} (${count(n)})`).join(", ");
  const save = element("button", { type: "button", id: "export", textContent: "Export row numbers", onclick: exportRows });
  const clear = element("button", { type: "button", id: "clear", textContent: "Clear", onclick: () => select(null) });
  const note = element("div", { className: "note", textContent: `in clusters ${most}` });
  $("selection").replaceChildren(element("strong", { textContent: `${count(map.selected.length)} rows selected` }), note, element("div", { className: "group" }, save, clear));
}

// A name as a cell that no spreadsheet takes for a formula.
const cell = (name) => `"${/^[=+@-]/.test(name) && Number.isNaN(+name) ? "'" : ""}${name.replaceAll('"', '""')}"`;

function exportRows() {
  const lines = map.selected.map((i) => `${rowOf(i)},${map.cluster[i]},${map.confidence[i].toFixed(4)}${map.names ? `,${cell(map.names[i])}` : ""}`);
  const url = URL.createObjectURL(new Blob([[`row,cluster,confidence${map.names ? ",name" : ""}`, ...lines, ""].join("\n")], { type: "text/csv" }));
  element("a", { href: url, download: "rows.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function choose(group) {
  const kind = map.color === "label" ? "class" : "cluster", from = `${kind} ${group}`;
  if (map.from === from) return select(null);
  const { of } = groups();
  select(where((i) => of[i] === group), from);
}

function drawLegend() {
  const { of, n, name } = groups(), sizes = new Array(n).fill(0);
  for (let i = 0; i < payload.n; i++) sizes[of[i]]++;
  const most = Math.max(...sizes);
  $("legend-title").textContent = map.color === "label" ? "Classes" : "Clusters";
  $("legend").replaceChildren(...sizes.map((size, g) => {
    const swatch = element("span", { className: "swatch" }), share = element("span", { className: "share" });
    swatch.style.background = color(g);
    share.style.width = `${100 * size / most}%`;
    const button = element("button", { type: "button", onclick: () => choose(g) }, swatch, element("span", { className: "name", textContent: name(g), title: name(g) }), share, element("span", { className: "size", textContent: count(size) }));
    button.dataset.g = g;
    button.setAttribute("aria-pressed", "false");
    return element("li", {}, button);
  }));
}

// ---- controls ------------------------------------------------------------------------------------------------------

function setDrag(mode) {
  map.drag = mode;
  for (const name of ["lasso", "pan"]) $(name).setAttribute("aria-pressed", String(name === mode));
  Plotly.relayout("plot", { dragmode: mode });
}

function toMap() {
  $("map").scrollIntoView({ block: "start" });
}

function bind() {
  const plot = $("plot");
  plot.on("plotly_hover", (event) => showRow(pointAt(event.points[0])));
  plot.on("plotly_click", (event) => pin(rowOf(pointAt(event.points[0]))));
  plot.on("plotly_selected", (event) => event && select(event.points.map(pointAt).sort((a, b) => a - b), "lasso"));
  plot.on("plotly_deselect", () => select(null));
  $("plane").onchange = (event) => { map.plane = +event.target.value; if (map.from === "lasso") map.from = "lasso on another map"; recolor(); };
  $("color").onchange = (event) => { map.color = event.target.value; split(); select(null); drawLegend(); };
  $("lasso").onclick = () => setDrag("lasso");
  $("pan").onclick = () => setDrag("pan");
  $("reset").onclick = () => Plotly.relayout("plot", { "xaxis.autorange": true, "yaxis.autorange": true });
  $("find").onsubmit = (event) => { event.preventDefault(); if ($("row").value !== "") pin(+$("row").value); };
  all(".pick").forEach((button) => { button.onclick = () => { pin(+button.dataset.row); toMap(); }; });
  const alone = (condition, from) => { $("color").value = map.color = "cluster"; split(); drawLegend(); select(where(condition), from); toMap(); };
  all(".choose").forEach((button) => { const k = +button.dataset.k; button.onclick = () => alone((i) => map.cluster[i] === k, `cluster ${k}`); });
  all(".cell").forEach((button) => { const k = +button.dataset.k, c = +button.dataset.class; button.onclick = () => alone((i) => map.cluster[i] === k && map.label[i] === c, "cell"); });
}

function offer() {
  $("plane").append(...payload.maps.map((plane, i) => element("option", { value: i, textContent: plane.name })));
  const ways = [["cluster", "cluster"], ["confidence", "max q(y|x)"]];
  if (map.score) ways.push(["score", "score: log p(x)"]);
  if (map.label) ways.push(["label", "label"]);
  $("color").append(...ways.map(([value, textContent]) => element("option", { value, textContent })));
}

async function startMap() {
  await loadMap();
  offer();
  drawLegend();
  if (matchMedia("(pointer: coarse)").matches) { map.drag = "pan"; $("lasso").setAttribute("aria-pressed", "false"); $("pan").setAttribute("aria-pressed", "true"); }
  $("plot").replaceChildren();
  await recolor();
  bind();
  redraws.push(recolor); // a scale's gray follows the theme
}

async function start() {
  const library = await gunzip($("library").textContent);
  $("library").remove();
  document.head.append(element("script", { textContent: new TextDecoder().decode(library) }));
  if (payload.maps) await startMap();
  drawCharts();
}

start().then(
  () => { document.documentElement.dataset.ready = String(Math.round(performance.now())); },
  (error) => {
    const why = typeof DecompressionStream === "undefined" ? "this browser is too old (it lacks DecompressionStream)" : error.message;
    all(".wait").forEach((p) => { p.textContent = `The map cannot be drawn: ${why}.`; });
    throw error;
  },
);
