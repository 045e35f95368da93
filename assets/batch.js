// The Runs tab in the page. It asks functions of the server, which answer with finished, escaped HTML, and puts it in
// place. What a person has typed is kept for this browser tab; runs belong to the server. `props.value` is the address
// of the page's board, which says whose runs these are.
const root = element.querySelector(".mr");
const find = (selector) => root.querySelector(selector);
const form = find("form");
const start = form.querySelector("[type=submit]");
const template = element.querySelector(".mr-set-template");
const { lost, problem, recalled, request, store } = window.mmParts;
const KEY = "multimodel-runs";
const FIRST = { name: "default", temperature: "0", max_tokens: "512", seed: "", top_p: "", system: "" };
const kept = { page: "new", run: "", prompts: "", title: "", repeats: 1, models: [], sets: [FIRST], ...recalled(KEY) };
let seen = ""; // the stamp of the run that is shown
let planned = 0; // counts the plans: an answer to an earlier one is dropped
let reported = ""; // the run and the number of answers whose report is shown
let next = 0; // the prompt that more of the report begins with
let timer = null;
let listed = false;

const keep = () => store(KEY, kept);
const ask = (name, asked = {}) => request(() => server[name]({ ...asked, id: props.value || "" }));

// Puts HTML in place only where it changed; the focus stays on the button that does the same.
function put(place, html) {
  if (place.mrHTML === html) return;
  const focused = place.contains(document.activeElement) ? { ...document.activeElement.dataset } : null;
  place.mrHTML = html;
  place.innerHTML = html;
  const [name, value] = Object.entries(focused || {})[0] || [];
  if (name) place.querySelector(`[data-${name}="${CSS.escape(value)}"]`)?.focus();
}

function page(name, run = "") {
  if (run !== kept.run) {
    seen = reported = "";
    for (const part of ["[data-report]", "[data-asked]", "[data-report-said]", "[data-act-said]"]) put(find(part), "");
    find("[data-more]").hidden = find("[data-report-act]").hidden = true;
  }
  Object.assign(kept, { page: name, run: name === "run" ? run : "" });
  keep();
  root.dataset.page = name;
  for (const place of root.querySelectorAll("[data-shown]")) place.hidden = place.dataset.shown !== name;
  mark();
}

function mark() {
  for (const button of root.querySelectorAll("[data-run]"))
    button.setAttribute("aria-current", String(kept.page === "run" && button.dataset.run === kept.run));
  find(".mf-new").setAttribute("aria-current", String(kept.page === "new"));
}

// --- a new run

function fill() {
  for (const name of ["prompts", "title", "repeats"]) form.querySelector(`[data-set="${name}"]`).value = kept[name];
  models();
  sets();
  plan();
}

function models() {
  const nodes = kept.models.map((model) => {
    const node = document.createElement("li");
    const drop = document.createElement("button");
    Object.assign(drop, { type: "button", textContent: "×", title: `Remove ${model}` });
    drop.setAttribute("aria-label", `Remove ${model}`);
    drop.dataset.unpick = model;
    node.append(model, drop);
    return node;
  });
  find("[data-models]").replaceChildren(...nodes);
}

function sets() {
  const nodes = kept.sets.map((row) => {
    const node = template.content.firstElementChild.cloneNode(true);
    for (const field of node.querySelectorAll("[data-field]")) field.value = row[field.dataset.field] || "";
    node.querySelector("[data-do]").hidden = kept.sets.length < 2;
    return node;
  });
  find("[data-sets]").replaceChildren(...nodes);
}

function asked() {
  const { prompts, models, sets, title } = kept;
  return { prompts, models, sets, title, repeats: Number(kept.repeats) || 1 };
}

async function plan() {
  const mine = ++planned;
  const place = find("[data-plan]");
  const missing = !kept.prompts.trim() ? "Type the first prompt." : kept.models.length ? "" : "Add a model.";
  start.disabled = true;
  if (missing) return (place.mrHTML = ""), (place.textContent = missing);
  const answer = await ask("plan", asked());
  if (mine !== planned) return;
  put(place, answer.html || answer.error);
  start.disabled = !answer.html;
}

let waiting;
function changed() {
  keep();
  clearTimeout(waiting);
  waiting = setTimeout(plan, 250);
}

function pick(model) {
  if (!model) return;
  if (!kept.models.includes(model)) kept.models.push(model);
  find("[data-model]").value = "";
  models();
  changed();
}

async function list() {
  if (listed) return;
  listed = true;
  const answer = await ask("models");
  if (answer.html) find("datalist").innerHTML = answer.html;
  else listed = false;
}

async function take(file, name, said) {
  put(said, "");
  try {
    const found = await upload(file);
    return await ask(name, { path: found.path });
  } catch {
    return { error: problem("The file was not taken.", "Check that the app is running and the file is not too large.") };
  }
}

async function prompts(file) {
  const said = find("[data-prompts-said]");
  const answer = await take(file, "prompts", said);
  if (answer.error) return put(said, answer.error);
  use(answer.text);
  said.mrHTML = "";
  said.textContent = `${answer.count.toLocaleString("en")} prompts of ${file.name}. They can be changed here.`;
}

function use(text) {
  kept.prompts = text;
  form.querySelector('[data-set="prompts"]').value = text;
  changed();
}

async function fromChat() {
  const answer = await ask("chat");
  if (answer.error) return put(find("[data-prompts-said]"), answer.error);
  Object.assign(kept, { models: answer.models, sets: answer.sets });
  kept.prompts = answer.text || kept.prompts;
  fill();
  keep();
}

async function begin() {
  start.disabled = true;
  const answer = await ask("begin", asked());
  if (answer.error) return put(find("[data-plan]"), answer.error);
  Object.assign(kept, { prompts: "", title: "" });
  fill();
  page("run", answer.run);
  look();
}

async function bring(file) {
  const said = find("[data-bring-said]");
  const answer = await take(file, "bring", said);
  if (answer.error) return put(said, answer.error);
  page("run", answer.run);
  look();
}

// --- runs

async function look() {
  clearTimeout(timer);
  const here = root.offsetParent !== null;
  if (!props.value || !here) return (timer = setTimeout(look, 1000));
  const run = kept.page === "run" ? kept.run : "";
  const answer = await ask("watch", { run, seen });
  clearTimeout(timer); // another call may have come between
  timer = setTimeout(look, answer.error ? 3000 : answer.active ? 400 : 4000);
  const note = find("[data-act-said]");
  if (answer.error) return put(note, answer.error);
  if (note.mrHTML === lost()) put(note, "");
  put(find("[data-runs]"), answer.list);
  if (answer.gone && run === kept.run) page("new");
  if (answer.shown && answer.shown.run === kept.run) show(answer.shown);
  mark();
}

function show(run) {
  seen = run.stamp;
  put(find('[data-part="progress"]'), run.progress);
  if (!find("[data-rename]")) put(find('[data-part="head"]'), run.head);
  const live = find('[data-part="live"]');
  put(live, run.live);
  live.hidden = !run.live;
  find("[data-report-act]").hidden = !run.active || !run.done;
  if (!run.active && run.done && reported !== `${run.run} ${run.done} ${run.stamp}`) {
    reported = `${run.run} ${run.done} ${run.stamp}`;
    report();
  }
}

async function report(from = 0) {
  const run = kept.run;
  const answer = await ask("report", { run, start: from });
  if (run !== kept.run) return;
  put(find("[data-report-said]"), answer.error || "");
  if (answer.error) return (reported = "");
  next = answer.next;
  find("[data-more]").hidden = !next;
  if (from) find("[data-rows]").insertAdjacentHTML("beforeend", answer.html);
  else {
    find("[data-report]").mrHTML = ""; // more may have been added to it
    put(find("[data-report]"), answer.html);
    put(find("[data-asked]"), answer.asked);
  }
}

async function act(button) {
  const { act: name, ask: question } = button.dataset;
  if (name === "rename") return rename();
  if (question && !button.dataset.sure) return sure(button, question);
  button.disabled = true;
  const answer = await ask("act", { run: kept.run, act: name });
  put(find("[data-act-said]"), answer.error || "");
  if (answer.error) button.disabled = false;
  else if (name === "delete") page("new");
  else if (answer.run) page("run", answer.run);
  seen = "";
  look();
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

function rename() {
  const title = find(".mr-title h2");
  const field = document.createElement("input");
  Object.assign(field, { type: "text", value: title.textContent, maxLength: 200 });
  field.dataset.rename = "";
  field.setAttribute("aria-label", "New name");
  let left = false;
  const leave = async (save) => {
    if (left) return;
    left = true;
    if (save && field.value.trim()) await ask("act", { run: kept.run, act: "rename", title: field.value });
    field.remove();
    find('[data-part="head"]').mrHTML = seen = "";
    look();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") leave(true);
    if (event.key === "Escape") leave(false);
    event.stopPropagation();
  });
  field.addEventListener("blur", () => leave(true));
  title.replaceWith(field);
  field.focus();
  field.select();
}

async function download(kind) {
  const answer = await ask("download", { run: kept.run, kind });
  if (answer.error) return put(find("[data-act-said]"), answer.error);
  window.mmParts.save(answer.download);
}

// --- what a person does

const ACTIONS = {
  new: () => page("new"),
  file: () => find("[data-prompts-file]").click(),
  bring: () => find("[data-report-file]").click(),
  chat: fromChat,
  model: () => pick(find("[data-model]").value.trim()),
  set: () => {
    kept.sets.push({ ...kept.sets.at(-1), name: `set ${kept.sets.length + 1}` });
    sets();
    changed();
  },
  drop: (button) => {
    kept.sets.splice([...find("[data-sets]").children].indexOf(button.closest(".mr-set")), 1);
    sets();
    changed();
  },
  report: () => report(),
  more: () => report(next),
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  const { do: name, run, act: acted, file, unpick } = button.dataset;
  if (name) ACTIONS[name](button);
  else if (run) page("run", run), look();
  else if (acted) act(button);
  else if (file) download(file);
  else if (unpick) {
    kept.models = kept.models.filter((model) => model !== unpick);
    models();
    changed();
  }
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!start.disabled && document.activeElement !== find("[data-model]")) begin();
});
form.addEventListener("input", ({ target }) => {
  if (target.dataset.set) kept[target.dataset.set] = target.value;
  else if (target.dataset.field) {
    const place = [...find("[data-sets]").children].indexOf(target.closest(".mr-set"));
    kept.sets[place][target.dataset.field] = target.value;
  } else if ("model" in target.dataset) {
    const chosen = [...find("datalist").options].some((option) => option.value === target.value);
    return chosen ? pick(target.value) : undefined;
  } else return;
  changed();
});
form.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
  event.preventDefault(); // a run is started by its button only
  if ("model" in event.target.dataset) pick(event.target.value.trim());
});
find("[data-model]").addEventListener("focus", list);
for (const [mark, work] of [["prompts", prompts], ["report", bring]]) {
  const field = find(`[data-${mark}-file]`);
  field.addEventListener("change", () => {
    const [file] = field.files;
    field.value = "";
    if (file) work(file);
  });
}
find('[data-set="prompts"]').addEventListener("dragover", (event) => event.preventDefault());
find('[data-set="prompts"]').addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (!file) return;
  event.preventDefault();
  prompts(file);
});

watch("value", look);
fill();
page(kept.page, kept.run);
look();
