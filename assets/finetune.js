// The Fine-tune tab in the page. It asks functions of the server, which answer with finished, escaped HTML and with the
// points of curves; it draws those. What a person has set is kept for this browser tab, so a reload changes nothing;
// runs belong to the server. Events of the document: 'mm-model-ready' {name}, and 'mm-predict-open' {name}.
const tab = document.getElementById("mm-finetune");
const root = element.querySelector(".mf");
const find = (selector) => root.querySelector(selector);
const all = (selector) => [...root.querySelectorAll(selector)];
const { problem, recalled, request, store } = window.mmParts;
const KEY = "multimodel-finetune";
const SPLITTING = new Set(["validation_size", "test_size", "seed"]); // settings that decide who trains and who judges
const kept = { page: "new", run: "", draft: "", choices: {}, settings: {}, base: "", name: "", ...recalled(KEY) };
let looks = 0; // counts looks at the data: an answer to an earlier one is dropped
let weighed = 0; // likewise the questions for memory
let seen = ""; // the stamp of the run that is shown
let curves = {};
let steps = 0;
let states = null; // of all runs, as last told
let rows = null; // to train on
let length = null; // tokens of a text that the data asks for
let recommended = {};
let compared = null;
let timer = null;
const picked = new Set();

const keep = () => store(KEY, kept);
const ask = (name, asked = {}) => request(() => server[name](asked));

function later(work, wait) {
  let waiting;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(work, wait);
  };
}

// Puts HTML in place only where it changed; the focus stays on what has the same mark.
function put(place, html) {
  if (place.mfHTML === html) return;
  const focused = place.contains(document.activeElement) ? { ...document.activeElement.dataset } : null;
  place.mfHTML = html;
  place.innerHTML = html;
  if (!focused) return;
  const [name, value] = Object.entries(focused)[0] || [];
  if (!name) return;
  const mark = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  place.querySelector(`[data-${mark}="${CSS.escape(value)}"]`)?.focus();
}

// --- the views of the tab, and the pages of this one

function view(name) {
  tab.dataset.view = name;
  for (const button of tab.querySelectorAll("#mm-finetune-views [role=tab]"))
    button.setAttribute("aria-selected", String(button.dataset.view === name));
}

function page(name, run = "") {
  kept.page = name;
  if (run !== kept.run) seen = "";
  kept.run = name === "run" ? run : "";
  keep();
  root.dataset.page = name;
  for (const place of all("[data-shown]")) place.hidden = place.dataset.shown !== name;
  mark();
}

function mark() {
  for (const button of all("[data-run]"))
    button.setAttribute("aria-current", String(kept.page === "run" && button.dataset.run === kept.run));
  for (const box of all("[data-pick]")) box.checked = picked.has(box.dataset.pick);
  find(".mf-new").setAttribute("aria-current", String(kept.page === "new"));
  const button = find('[data-do="compare"]');
  button.hidden = picked.size < 2;
  button.textContent = `Compare ${picked.size} runs`;
}

// --- data

async function take(file, beside = "") {
  const said = (html) => put(find(beside ? "[data-doubts]" : "[data-bring-said]"), html);
  const limit = Number(find("[data-file]").dataset.limit);
  if (file.size > limit) {
    said(problem(`${file.name} has ${Math.round(file.size / 1e6)} MB.`,
      `Use at most ${Math.round(limit / 1e6)} MB; a sample of the rows trains nearly as well.`));
    return;
  }
  said(wait(`Uploading ${file.name}`));
  try {
    const found = await upload(file);
    await bring({ path: found.path, beside }, said);
  } catch {
    said(problem("The file was not taken.", "Check that the app is still running and the file is not too large."));
  }
}

function wait(text) {
  const box = document.createElement("div");
  box.innerHTML = '<div class="mf-wait"><i></i><span></span></div>';
  box.querySelector("span").textContent = text;
  return box.innerHTML;
}

async function bring(asked, said = (html) => put(find("[data-bring-said]"), html)) {
  said(wait(asked.hub ? `Asking the Hub for ${asked.hub}` : "Reading the data"));
  const answer = await ask("bring", asked);
  if (answer.error) return said(answer.error);
  said("");
  Object.assign(kept, { draft: answer.draft, choices: { fixes: [], ignored: [], labels: {} } });
  if (!asked.beside) set("name").value = kept.name = answer.name;
  keep();
  put(find("[data-columns]"), answer.columns);
  await look();
}

function brought(yes) {
  find("[data-bring]").hidden = yes;
  find("[data-brought]").hidden = !yes;
}

async function look() {
  const mine = ++looks;
  brought(true);
  const place = find("[data-report]");
  place.classList.add("mf-busy");
  if (!place.childElementCount) put(place, '<div class="mx-waiting"><i></i><i></i><i></i><i></i></div>');
  const answer = await ask("look", { draft: kept.draft, ...kept.choices, base: base(), settings: settings() });
  if (mine !== looks) return;
  place.classList.remove("mf-busy");
  const start = find('[data-do="start"]');
  if (answer.error) {
    put(place, answer.error);
    start.disabled = true;
    return;
  }
  put(find("[data-columns]"), answer.columns);
  put(place, answer.report);
  start.disabled = !answer.ready;
  recommend(answer);
}

function recommend(answer) {
  for (const name of Object.keys(recommended)) // what the data no longer asks for
    if (!(name in answer.recommended) && !(name in kept.settings)) fill(name, false);
  recommended = answer.recommended;
  rows = answer.rows;
  length = recommended.max_length || null;
  set("max_length").placeholder = length ? `auto: ${length}` : "auto";
  put(find("[data-why]"), answer.why);
  for (const [name, value] of Object.entries(recommended))
    if (name !== "max_length" && !(name in kept.settings)) fill(name, value);
  weigh();
}

function other() {
  Object.assign(kept, { draft: "", choices: {} });
  keep();
  looks++;
  for (const name of ["columns", "report", "doubts"]) put(find(`[data-${name}]`), "");
  brought(false);
  find('[data-do="start"]').disabled = true;
}

function choose(change) {
  kept.choices = { fixes: [], ignored: [], labels: {}, ...kept.choices, ...change };
  keep();
  look();
}

async function doubts() {
  const place = find("[data-doubts]");
  put(place, wait("Looking for labels that a model would doubt"));
  const answer = await ask("doubts", { draft: kept.draft, ...kept.choices, base: base(), settings: settings() });
  put(place, answer.html || answer.error);
  place.scrollIntoView({ block: "nearest" });
}

function relabel(button) {
  const row = button.closest("tr");
  const { relabel: index, to } = button.dataset;
  row.dataset.settled = to ? `Now ${to}` : "Left out";
  row.lastElementChild.textContent = row.dataset.settled;
  choose({ labels: { ...kept.choices.labels, [index]: to } });
}

// --- settings

function set(name) {
  return find(`[data-set="${name}"]`);
}

function fill(name, value) {
  const node = set(name);
  if (!node) return;
  if (node.type === "checkbox") node.checked = Boolean(value);
  else node.value = value === null ? "" : value;
}

function base() {
  return set("base").value === "?" ? set("other").value.trim() : set("base").value;
}

function settings() {
  const found = {};
  for (const node of all("[data-set]")) {
    const name = node.dataset.set;
    if (!["base", "other", "name"].includes(name)) found[name] = node.type === "checkbox" ? node.checked : node.value;
  }
  return found;
}

function chooseBase(name) {
  const list = set("base");
  const known = [...list.options].some((option) => option.value === name);
  list.value = known ? name : "?";
  set("other").hidden = known;
  if (!known) set("other").value = name;
}

async function weigh() {
  const mine = ++weighed;
  const place = find("[data-memory]");
  if (!base()) return put(place, "");
  const answer = await ask("memory", { settings: settings(), base: base(), length, rows });
  if (mine !== weighed) return;
  put(place, answer.html || answer.error);
}

// A base model that was chosen elsewhere in the app.
function startWith(name) {
  view("train");
  page("new");
  chooseBase(name);
  changed(set("base"));
}

const weighLater = later(weigh, 350);
const lookLater = later(() => kept.draft && look(), 500);

function changed(node) {
  const name = node.dataset.set;
  if (name === "base" || name === "other") {
    set("other").hidden = set("base").value !== "?";
    if (name === "base" && node.value === "?") set("other").focus();
    kept.base = base();
    lookLater();
  } else if (name === "name") kept.name = node.value;
  else {
    if (SPLITTING.has(name)) lookLater();
    kept.settings[name] = node.type === "checkbox" ? node.checked : node.value;
  }
  keep();
  weighLater();
}

async function start(button) {
  button.disabled = true;
  const place = find("[data-start-said]");
  place.innerHTML = "";
  const asked = { draft: kept.draft, ...kept.choices, settings: settings(), base: base(), name: set("name").value.trim() };
  const answer = await ask("begin", asked);
  button.disabled = false;
  if (answer.error) {
    place.innerHTML = answer.error;
    return;
  }
  page("run", answer.run);
  watch();
}

// --- runs

async function watch() {
  clearTimeout(timer);
  const asked = { run: kept.page === "run" ? kept.run : "", seen };
  const answer = await ask("watch", asked);
  clearTimeout(timer); // another call may have come between
  const here = root.offsetParent !== null;
  timer = setTimeout(watch, pause(answer, here));
  const note = find("[data-act-said]");
  if (answer.error) return put(note, answer.error);
  if (note.querySelector(".mm-error") && note.mfHTML) put(note, "");
  put(find("[data-runs]"), answer.list);
  told(answer.states);
  if (answer.gone && asked.run === kept.run) return page("new"), mark();
  if (answer.shown && answer.shown.run === kept.run) show(answer.shown);
  mark();
}

// Milliseconds until the next look. What is not seen is looked at less often, an end that is near more often.
function pause(answer, here) {
  if (answer.error) return 3000;
  if (!answer.active) return here ? 4000 : 10000;
  return answer.soon ? 200 : here ? 500 : 1000;
}

function told(now) {
  if (states)
    for (const [name, state] of Object.entries(now))
      if (state === "model" && states[name] === "active")
        document.dispatchEvent(new CustomEvent("mm-model-ready", { detail: { name } }));
  states = now;
  for (const name of picked) if (!(name in now)) picked.delete(name);
}

function show(run) {
  seen = run.stamp;
  if (!("head" in run)) return;
  for (const name of ["head", "bars", "plan", "result", "errors"]) put(find(`[data-part="${name}"]`), run[name]);
  for (const button of all("[data-try]")) button.hidden = !document.getElementById("mm-finetune-predict");
  const log = find('[data-part="log"]');
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  put(log, run.log);
  if (atEnd) log.scrollTop = log.scrollHeight;
  log.closest("details").hidden = !run.log;
  curves = run.curves;
  steps = run.steps;
  draw();
}

async function act(button) {
  const { act: name, ask: question } = button.dataset;
  if (question && !button.dataset.sure) return sure(button, question);
  button.disabled = true;
  const asked = { run: kept.run, act: name, retry: Boolean(button.dataset.changes) };
  const answer = await ask("act", asked);
  put(find("[data-act-said]"), answer.error || "");
  if (answer.error) button.disabled = false;
  else if (name === "discard") page("new");
  seen = "";
  watch();
}

function sure(button, question) {
  const text = button.textContent;
  button.dataset.sure = "1";
  button.textContent = question;
  setTimeout(() => {
    delete button.dataset.sure;
    button.textContent = text;
  }, 4000);
}

async function again() {
  const answer = await ask("settings_used", { run: kept.run });
  if (answer.error) return put(find("[data-act-said]"), answer.error);
  for (const [name, value] of Object.entries(answer.settings)) fill(name, value);
  chooseBase(answer.base);
  set("name").value = answer.name;
  const { draft = "", choices = {} } = answer;
  Object.assign(kept, { settings: { ...settings() }, base: answer.base, name: answer.name });
  other();
  page("new");
  if (!draft) return put(find("[data-bring-said]"), problem("The rows of that run are not there any more.", "Choose them once more."));
  Object.assign(kept, { draft, choices: { fixes: [], ignored: [], labels: {}, ...choices } });
  keep();
  await look();
}

async function compare() {
  const answer = await ask("compare", { runs: [...picked] });
  page("compare");
  put(find("[data-versus]"), answer.html || answer.error);
  compared = answer.curves || {};
  draw();
}

// --- curves

const COLOURS = { loss: "--mm-c0", validation_loss: "--mm-c2", accuracy: "--mm-c1", f1: "--mm-c3", rmse: "--mm-c1", mae: "--mm-c3" };
const NAMES = { loss: "training", validation_loss: "validation", accuracy: "accuracy", f1: "macro F1", rmse: "RMSE", mae: "mean error" };
const SHARE = (value) => `${Math.round(1000 * value) / 10} %`;
const NUMBER = (value) => String(Number(value.toPrecision(3)));

function draw() {
  if (kept.page === "compare" && compared) drawCompared();
  if (kept.page !== "run") return;
  const place = find("[data-curves]");
  const pick = (names) => names.filter((name) => curves[name]?.length)
    .map((name) => ({ name: NAMES[name], colour: COLOURS[name], points: curves[name] }));
  const numbers = Boolean(curves.rmse);
  place.hidden = !pick(["loss"]).length;
  if (place.hidden) return;
  chart(place, 0, "Loss", pick(["loss", "validation_loss"]), { steps });
  chart(place, 1, numbers ? "Error on the validation rows" : "On the validation rows",
    pick(numbers ? ["rmse", "mae"] : ["accuracy", "f1"]), { steps, share: !numbers, none: "After the first evaluation" });
}

function drawCompared() {
  const place = find("[data-overlaid]");
  const runs = Object.entries(compared);
  const metric = runs.some(([, found]) => found.f1) ? "f1" : "rmse";
  const of = (curve) => runs.map(([name, found], i) => ({ name, colour: `--mf-r${i}`, points: found[curve] || [] }))
    .filter((series) => series.points.length);
  chart(place, 0, "Training loss", of("loss"), {});
  chart(place, 1, "Validation loss", of("validation_loss"), { none: "None was judged" });
  chart(place, 2, metric === "f1" ? "Macro F1" : "RMSE", of(metric), { share: metric === "f1", none: "None was judged" });
}

// Steps of an axis: about `count` round numbers from low to high.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

function span(series, share) {
  const values = series.flatMap((one) => one.points.map((point) => point[1])).filter(Number.isFinite);
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (share) high = Math.min(1, high + 0.02), low = Math.max(0, low - 0.05);
  else if (low > 0 && low < high / 2) low = 0;
  const edge = (high - low || Math.abs(high) || 1) * 0.06;
  return [share ? low : Math.max(low < 0 ? -Infinity : 0, low - edge), share ? high : high + edge];
}

// A line through the noise: the exponential mean over about a twentieth of the points.
function smooth(points) {
  const weight = 1 / Math.max(2, points.length / 20);
  let mean = points[0][1];
  return points.map(([step, value]) => [step, (mean += weight * (value - mean))]);
}

function svg(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// One chart in its place: title and legend above, value against step below. `steps`: where the run will end.
function chart(place, index, title, series, { steps: last = 0, share = false, none = "" }) {
  while (place.children.length <= index) place.append(document.createElement("figure"));
  const figure = place.children[index];
  figure.className = "mf-chart";
  const width = Math.max(240, figure.clientWidth);
  const key = JSON.stringify([title, series, last, width]);
  if (figure.mfKey === key) return;
  figure.mfKey = key;
  figure.replaceChildren(heading(title, series, share ? SHARE : NUMBER));
  if (!series.length) {
    figure.append(Object.assign(document.createElement("p"), { className: "mf-nothing", textContent: none }));
    return;
  }
  figure.append(plot(series, width, last, share, title));
}

function heading(title, series, format) {
  const head = document.createElement("figcaption");
  head.append(Object.assign(document.createElement("b"), { textContent: title }));
  for (const one of series) {
    const item = document.createElement("span");
    item.append(Object.assign(document.createElement("i"), { className: "mx-dot" }));
    item.firstChild.style.background = `var(${one.colour})`;
    item.append(one.name, Object.assign(document.createElement("em"), { textContent: format(one.points.at(-1)[1]) }));
    head.append(item);
  }
  return head;
}

function plot(series, width, last, share, title) {
  const height = 196, left = 46, right = 10, top = 8, bottom = 36;
  const format = share ? SHARE : NUMBER;
  const end = Math.max(last, ...series.map((one) => one.points.at(-1)[0]), 1);
  const [low, high] = span(series, share);
  const x = (step) => left + (width - left - right) * (step / end);
  const y = (value) => top + (height - top - bottom) * (1 - (value - low) / (high - low || 1));
  const trace = (points) => points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const said = series.map((one) => `${one.name} ${format(one.points.at(-1)[1])} at step ${one.points.at(-1)[0]}`).join(", ");
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${title}: ${said}` });
  for (const value of ticks(low, high, 4)) {
    node.append(svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "mf-grid-line" }));
    node.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  }
  for (const step of ticks(0, end, Math.max(2, Math.floor(width / 110)))) {
    if (!Number.isInteger(step)) continue;
    node.append(svg("text", { x: x(step), y: height - bottom + 16, "text-anchor": step ? "middle" : "start" }, step.toLocaleString("en")));
  }
  node.append(svg("text", { x: width - right, y: height - 3, "text-anchor": "end" }, "step"));
  for (const one of series) {
    const points = one.points.filter((point) => Number.isFinite(point[1]));
    const path = trace(points);
    const many = points.length > 30;
    node.append(svg("path", { d: path, style: `stroke:var(${one.colour})`, class: many ? "mf-line mf-faint" : "mf-line" }));
    if (many) node.append(svg("path", { d: trace(smooth(points)), style: `stroke:var(${one.colour})`, class: "mf-line" }));
    if (points.length <= 12)
      for (const [step, value] of points) node.append(svg("circle", { cx: x(step), cy: y(value), r: 2.5, style: `fill:var(${one.colour})` }));
  }
  hover(node, series, { x, left, right, width, top, height, bottom, end, format });
  return node;
}

// Under the pointer: a line, and the values there.
function hover(node, series, at) {
  const line = svg("line", { y1: at.top, y2: at.height - at.bottom, class: "mf-cursor", visibility: "hidden" });
  const label = svg("text", { y: at.height - 3, class: "mf-read" });
  node.append(line, label);
  node.addEventListener("pointermove", (event) => {
    const box = node.getBoundingClientRect();
    const step = ((event.clientX - box.left) * (at.width / box.width) - at.left) / (at.width - at.left - at.right) * at.end;
    const nearest = series.map((one) => one.points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a)));
    const where = nearest.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a))[0];
    line.setAttribute("x1", at.x(where));
    line.setAttribute("x2", at.x(where));
    line.setAttribute("visibility", "visible");
    label.setAttribute("x", at.left);
    label.textContent = `Step ${where.toLocaleString("en")}: ` +
      series.map((one, i) => `${one.name} ${at.format(nearest[i][1])}`).join(", ");
  });
  node.addEventListener("pointerleave", () => {
    line.setAttribute("visibility", "hidden");
    label.textContent = "";
  });
}

// --- what a person does

const doings = {
  choose: () => pickFile(""),
  test: () => pickFile(kept.draft),
  other,
  doubts,
  unlabel: () => choose({ labels: {} }),
  undoubt: () => put(find("[data-doubts]"), ""),
  recommended: () => {
    for (const [name, value] of Object.entries(recommended)) {
      fill(name, name === "max_length" ? "" : value);
      delete kept.settings[name];
    }
    keep();
    weigh();
  },
  start,
  new: () => page("new"),
  again,
  compare,
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  const data = button.dataset;
  const { fixes = [], ignored = [] } = kept.choices;
  if (data.do) doings[data.do]?.(button);
  else if (data.act) act(button);
  else if (data.run) open(data.run);
  else if (data.try) document.dispatchEvent(new CustomEvent("mm-predict-open", { detail: { name: data.try } }));
  else if (data.sample) bring({ sample: data.sample });
  else if (data.fix) choose({ fixes: [...new Set([...fixes, ...data.fix.split(" ")])] });
  else if (data.unfix) choose({ fixes: fixes.filter((name) => name !== data.unfix) });
  else if (data.ignore) choose({ ignored: [...ignored, data.ignore] });
  else if (data.heed) choose({ ignored: ignored.filter((name) => name !== data.heed) });
  else if (data.settings) heedSettings(data);
  else if (data.batch) useBatch(data.batch);
  else if ("relabel" in data) relabel(button);
});

function open(run) {
  if (kept.page === "run" && kept.run === run) return;
  page("run", run);
  for (const part of all("[data-part]")) put(part, "");
  put(find("[data-act-said]"), "");
  find("[data-curves]").hidden = true;
  watch();
}

// A finding that a setting answers: it is set, and the finding is dealt with.
function heedSettings(data) {
  for (const [name, value] of Object.entries(JSON.parse(data.settings))) {
    fill(name, value);
    kept.settings[name] = value;
  }
  choose({ ignored: [...(kept.choices.ignored || []), data.name] });
}

function pickFile(beside) {
  find("[data-file]").dataset.beside = beside;
  find("[data-file]").click();
}

function useBatch(rows) {
  fill("batch_size", rows);
  changed(set("batch_size"));
}

element.addEventListener("change", (event) => {
  const node = event.target;
  if (node.dataset.choice) choose({ [node.dataset.choice]: node.value });
  else if (node.dataset.set) changed(node);
  else if (node.dataset.pick) {
    node.checked ? picked.add(node.dataset.pick) : picked.delete(node.dataset.pick);
    mark();
  } else if ("file" in node.dataset && node.files.length) {
    take(node.files[0], node.dataset.beside);
    node.value = "";
  }
});

element.addEventListener("input", (event) => {
  if (event.target.dataset.set && event.target.type !== "checkbox") changed(event.target);
});

element.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-way]");
  if (!form) return;
  event.preventDefault();
  const value = form.querySelector("textarea, input").value;
  if (value.trim()) bring({ [form.dataset.way]: value });
  else put(find("[data-bring-said]"), problem(form.dataset.way === "text" ? "There are no rows yet." : "There is no name yet.",
    form.dataset.way === "text" ? "Paste a text and its label in each line." : "Write OWNER/NAME, as the Hub calls it."));
});

const drop = find("[data-drop]");
for (const name of ["dragover", "dragenter"])
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("mf-over");
  });
drop.addEventListener("dragleave", () => drop.classList.remove("mf-over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("mf-over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});

tab.addEventListener("click", (event) => {
  const button = event.target.closest("#mm-finetune-views [data-view]");
  if (button) view(button.dataset.view);
});
document.addEventListener("mm-predict-open", () => view("predict"));
document.addEventListener("mm-train-data", (event) => {
  view("train");
  page("new");
  bring({ path: event.detail.path });
});
document.addEventListener("mm-finetune-base", (event) => startWith(event.detail.base));
new ResizeObserver(() => draw()).observe(root);

// --- begin

view("train");
for (const [name, value] of Object.entries(kept.settings)) fill(name, value);
if (kept.base) chooseBase(kept.base);
set("name").value = kept.name;
page(kept.page === "compare" ? "new" : kept.page, kept.run);
const chosen = document.documentElement.dataset.mmFinetuneBase; // before this tab was made
if (chosen) startWith(chosen);

// The tab asks nobody before it is seen.
let begun = false;
new IntersectionObserver((entries) => {
  if (begun || !entries.some((entry) => entry.isIntersecting)) return;
  begun = true;
  if (kept.draft) restore();
  else weigh();
  watch();
}).observe(root);

// After a reload: the data is still held by the app, unless that was started anew.
async function restore() {
  await look();
  if (!find("[data-columns]").childElementCount) {
    const why = find("[data-report]").innerHTML;
    other();
    put(find("[data-bring-said]"), why);
  }
}
