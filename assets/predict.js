// The Predict view. It asks functions of the server, which answer with finished, escaped HTML, and puts that in place.
// Answers to questions that nobody asks any more are dropped. What is typed survives a reload.
const root = element.querySelector(".mp");
const find = (selector) => root.querySelector(selector);
const field = (name) => find(`[data-field="${name}"]`);
const text = (name) => find(`[data-text="${name}"]`);
const out = (name) => find(`[data-out="${name}"]`);
const note = find("[data-note]");
const { request } = window.mmParts;
const FILL = "fill:";
const PAUSE = 250; // milliseconds without a key before a text is asked
const LOOK = 300; // milliseconds between two looks at a batch
let tasks = {}; // model: what it says of a text
let thresholds = {}; // model: percent
let mode = "one";
let asked = 0; // counts questions: an answer to an earlier one is dropped
let loading = 0; // likewise the models that are brought into memory
let started = false;
let file = null; // {path} of the uploaded file
const batches = {}; // "many" or "file": the id of the newest batch

const SKELETON = '<div class="mp-answer mx-waiting"><i></i><i></i><i></i><i></i></div>';

const ask = (name, more = {}) => request(() => server[name]({ ...question(), ...more }), "retry");

function question() {
  return { model: field("model").value, other: field("other").value, threshold: percent() / 100 };
}

function later(work, wait) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}

function put(place, html) {
  place.innerHTML = html;
}

// --- which model

async function list(choose) {
  const answer = await ask("listed");
  if (answer.error) return put(note, answer.error);
  put(note, "");
  tasks = answer.tasks;
  const before = { model: choose || field("model").value || sessionStorage.mmPredictModel || "", other: field("other").value };
  field("model").innerHTML = answer.options;
  field("other").innerHTML = answer.other;
  for (const [name, value] of Object.entries(before))
    if ([...field(name).options].some((option) => option.value === value)) field(name).value = value;
  root.classList.toggle("mp-none", !answer.options);
  if (!answer.options)
    put(note, '<div class="mx-quiet">No model yet. Train one: it can be used here the moment it is done.</div>');
  chosen();
}

function chosen() {
  const model = field("model").value;
  sessionStorage.mmPredictModel = model;
  const filler = model.startsWith(FILL);
  root.classList.toggle("mp-filling", filler);
  for (const option of field("other").options) option.hidden = option.value === model;
  if (field("other").value === model) field("other").value = "";
  showThreshold();
  if (model) warm();
  show(filler ? "fill" : mode === "fill" ? "one" : mode);
  if (!filler) countCorrections();
  for (const kind of ["one", "fill"]) put(out(kind), SKELETON);
  again();
}

// Loading takes seconds the first time: say so where the answer will be.
async function warm(more = {}) {
  const mine = ++loading;
  const slow = setTimeout(() => mine === loading && (root.dataset.loading = "1"), 400);
  const answer = await ask("warm", more);
  clearTimeout(slow);
  if (mine !== loading) return;
  delete root.dataset.loading;
  if (answer.error) put(out(mode === "fill" ? "fill" : "one"), answer.error);
}

function percent() {
  return tasks[field("model").value] === "regression" ? 0 : thresholds[field("model").value] || 0;
}

function showThreshold() {
  const several = tasks[field("model").value] === "multi_label";
  const place = find(".mp-threshold");
  place.hidden = !tasks[field("model").value] || tasks[field("model").value] === "regression";
  find("[data-threshold-words]").textContent = several ? "Say a label from" : "Not sure below";
  field("threshold").value = percent();
  find("[data-threshold]").textContent = percent() ? `${percent()} %` : several ? "its own" : "off";
}

// --- which question

function show(name) {
  mode = name;
  root.dataset.mode = name;
  for (const tab of root.querySelectorAll("[role=tab]")) tab.setAttribute("aria-selected", String(tab.dataset.mode === name));
  for (const place of root.querySelectorAll("[data-shown]")) place.hidden = place.dataset.shown !== name;
  if (name === "corrections") corrections();
}

function again() {
  if (mode === "one") one();
  else if (mode === "fill") fill();
  else if (batches[mode]) look(mode);
  else if (mode === "corrections") corrections();
}

async function one() {
  const mine = ++asked;
  const place = out("one");
  if (!text("one").value.trim() || !field("model").value) {
    place.classList.remove("mp-busy");
    put(place, field("model").value ? '<div class="mx-quiet">The answer appears here, with the words that decided.</div>' : "");
    find("[data-speed]").textContent = "";
    return;
  }
  place.classList.add("mp-busy");
  const answer = await ask("one", { text: text("one").value });
  if (mine !== asked) return;
  place.classList.remove("mp-busy");
  find("[data-speed]").textContent = answer.speed || "";
  if (answer.error) return put(place, answer.error);
  const kept = [...place.querySelectorAll("[data-words]")].map((node) => node.innerHTML); // hold their place
  put(place, answer.html);
  place.querySelectorAll("[data-words]").forEach((node, i) => {
    node.innerHTML = kept[i] || "";
    node.classList.add("mp-busy");
  });
  words(mine);
}

const words = later(async (mine) => {
  for (const node of out("one").querySelectorAll(".mp-answer")) {
    if (mine !== asked) return;
    await explain(node, "", mine);
  }
}, PAUSE);

async function explain(node, label, mine = asked) {
  const answer = await ask("explain", { model: node.dataset.model, text: text("one").value, label });
  if (mine !== asked) return;
  const place = node.querySelector("[data-words]");
  place.classList.remove("mp-busy");
  place.innerHTML = answer.html || answer.error || "";
  for (const bar of node.querySelectorAll("[data-explain]"))
    bar.setAttribute("aria-pressed", String(bar.dataset.explain === answer.label));
}

async function fill() {
  const mine = ++asked;
  const place = out("fill");
  place.classList.add("mp-busy");
  const answer = await ask("fill", { text: text("fill").value });
  if (mine !== asked) return;
  place.classList.remove("mp-busy");
  put(place, answer.html || answer.error || "");
}

// A word is taken: the next gap is asked for, where there is one.
function fillIn(whole) {
  text("fill").value = whole;
  keep();
  if (/\[MASK\]|<mask>/.test(whole)) fill();
}

// --- many texts and files

async function many() {
  put(out("many"), waiting());
  run("many", await ask("many", { text: text("many").value }));
}

async function whole() {
  put(out("file"), waiting());
  run("file", await ask("whole", { path: file.path, column: find("[data-column]").value }));
}

function waiting() {
  return '<div class="mp-progress"><div role="status">Loading the model</div><div class="mm-bar"><i style="width:0"></i></div></div>';
}

function run(kind, answer) {
  if (answer.error) return put(out(kind), answer.error);
  batches[kind] = answer.id;
  put(out(kind), answer.html);
  if (answer.running) setTimeout(() => batches[kind] === answer.id && look(kind), LOOK);
}

async function look(kind, more = {}) {
  const id = batches[kind];
  const answer = await ask("batch", { id, order: order(kind), ...more });
  if (batches[kind] === id) run(kind, answer);
}

const order = (kind) => out(kind).querySelector("[data-order]")?.value || "";

async function table() {
  const answer = await ask("table", { id: batches.many, order: order("many") });
  put(note, answer.error || "");
  if (!answer.error) download(answer);
}

async function take(chosen) {
  const place = find("[data-opened]");
  file = null;
  delete batches.file;
  put(out("file"), "");
  put(place, '<div class="mp-progress"><div role="status">Uploading and reading the file</div></div>');
  try {
    file = await upload(chosen);
  } catch (error) {
    const why = document.createElement("p");
    why.textContent = String(error.message || error);
    put(place, '<div class="mm-error mx-error" role="alert"><strong>The file could not be uploaded.</strong>' +
      `${why.outerHTML}<p>It may be too large for the page; a script can use Predictor.file.</p></div>`);
    return;
  }
  const answer = await ask("opened", { path: file.path });
  put(place, answer.html || answer.error);
}

// --- corrections

async function countCorrections() {
  const answer = await ask("corrected");
  find("[data-corrected]").textContent = answer.count || "";
  return answer;
}

async function corrections(more = {}) {
  const answer = more.drop || more.clear ? await ask("corrected", more) : await countCorrections();
  find("[data-corrected]").textContent = answer.count || "";
  put(out("corrections"), answer.html || answer.error);
}

async function correct(button) {
  const box = button.closest(".mp-correct");
  const boxes = box.querySelector("[data-right-all]");
  const right = boxes ? [...boxes.querySelectorAll(":checked")].map((node) => node.value) : box.querySelector("[data-right]").value;
  const row = button.closest("[data-row]");
  const model = button.closest("[data-model]")?.dataset.model || field("model").value;
  const what = row ? { id: batches[mode], row: Number(row.dataset.row) } : { text: text("one").value };
  const answer = await ask("correct", { ...what, model, right });
  const place = box.querySelector("output");
  if (answer.error) place.innerHTML = answer.error;
  else {
    place.textContent = answer.text;
    if (model === field("model").value) find("[data-corrected]").textContent = answer.count;
  }
}

async function row(button) {
  const place = button.closest("[data-row]");
  const answer = await ask("choices", { id: batches[mode], row: Number(place.dataset.row) });
  button.parentElement.innerHTML = answer.html || answer.error;
  const details = place.querySelector("details");
  if (details) details.open = true;
  place.querySelector("[data-right]")?.focus();
}

async function exported() {
  return ask("export", { whole: Boolean(field("whole") && field("whole").checked) });
}

function download(answer) {
  const link = document.createElement("a");
  link.href = answer.url;
  link.download = answer.file;
  link.click();
}

// --- what a person does

const doings = {
  retry: () => (started && field("model").options.length ? again() : list()),
  many,
  whole,
  table,
  stop: () => look(mode, { stop: true }),
  choose: () => find("[data-file]").click(),
  correct,
  row,
  drop: (button) => corrections({ drop: button.dataset.text }),
  clear: (button) => {
    if (button.dataset.sure) return corrections({ clear: true });
    button.dataset.sure = "1";
    button.textContent = "Clear all of them";
    setTimeout(() => button.isConnected && (delete button.dataset.sure, (button.textContent = "Clear")), 4000);
  },
  export: async () => {
    const answer = await exported();
    if (answer.error) put(note, answer.error);
    else download(answer);
  },
  train: async () => {
    const answer = await exported();
    if (answer.error) return put(note, answer.error);
    const detail = { corrections: true, model: answer.model, path: answer.path, file: answer.file };
    document.dispatchEvent(new CustomEvent("mm-train-data", { detail }));
  },
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  const data = button.dataset;
  if (data.mode) show(data.mode), again();
  else if (data.explain !== undefined) explain(button.closest(".mp-answer"), data.explain);
  else if (data.take !== undefined) fillIn(data.take);
  else if (data.do) doings[data.do]?.(button);
});

const typed = later(one, PAUSE);
const filled = later(fill, PAUSE);
const slid = later(again, 120);

function keep() {
  for (const name of ["one", "many", "fill"]) sessionStorage[`mmPredict-${name}`] = text(name).value;
  const lines = text("many").value.split("\n").filter((line) => line.trim()).length;
  find("[data-lines]").textContent = lines ? `${lines.toLocaleString("en")} ${lines === 1 ? "text" : "texts"}` : "";
}

element.addEventListener("input", (event) => {
  const data = event.target.dataset;
  if (data.text) keep();
  if (data.text === "one") typed();
  else if (data.text === "fill") filled();
  else if (data.field === "threshold") {
    thresholds[field("model").value] = Number(event.target.value);
    showThreshold();
    slid();
  }
});

element.addEventListener("change", (event) => {
  const node = event.target;
  const data = node.dataset;
  if (data.field === "model") chosen();
  else if (data.field === "other") {
    if (node.value) warm({ model: node.value });
    again();
  } else if ("order" in data) look(mode);
  else if ("file" in data && node.files.length) {
    take(node.files[0]);
    node.value = "";
  }
});

text("many").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) many(), event.preventDefault();
});

const drop = find(".mp-drop");
for (const kind of ["dragover", "dragleave", "drop"])
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("mp-over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });

for (const name of ["one", "many", "fill"])
  if (sessionStorage[`mmPredict-${name}`]) text(name).value = sessionStorage[`mmPredict-${name}`];
keep();

// A model that is ready now is shown at once; one that was renamed or deleted is seen when the view is.
document.addEventListener("mm-model-ready", (event) => list(started ? "" : event.detail?.name));
document.addEventListener("mm-predict-open", (event) => ((started = true), list(event.detail?.name)));
new IntersectionObserver((seen) => {
  if (!seen.some((entry) => entry.isIntersecting)) return;
  started = true;
  list();
}).observe(root);
