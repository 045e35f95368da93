// The Explorer in the page. It asks functions of the server, which answer with finished, escaped HTML, and puts that in
// place. Answers to questions that nobody asks any more are dropped. Its events are 'chat' {model} and 'own', which the
// server answers with the ratings by the visitor's votes (watch 'value').
const root = element.querySelector(".mx");
const find = (selector) => root.querySelector(selector);
const list = find("[data-list]");
const foot = find("[data-foot]");
const note = find("[data-note]");
const detail = find("[data-detail]");
const field = (name) => find(`[data-field="${name}"]`);
const ENOUGH = 12; // rows that fit before the search for more waits to be asked
const PAGES = 6; // requests in a row, when few rows fit
let search = 0; // counts searches: an answer to an earlier one is dropped
let opened = 0; // likewise the models that were opened
let planned = 0;
let trained = 0;
let cursor = "";
let busy = false;
let started = false;
let current = null; // {name, label} of the model that is open

async function ask(name, asked = {}) {
  try {
    return (await server[name]({ ...asked, machine: machine() })) || {};
  } catch {
    return { error: '<div class="mm-error mx-error" role="alert"><strong>The app does not answer.</strong>' +
      '<p>Check that it is still running, then try again.</p><button type="button" data-do="retry">Try again</button></div>' };
  }
}

function later(work, wait) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}

function machine() {
  const chosen = field("machine").value;
  return chosen === "?" ? field("typed").value.trim() : chosen;
}

// --- results

function query() {
  const asked = { fits: field("fits").checked };
  for (const name of ["text", "sort", "library", "task", "licence", "gated", "smallest", "largest", "author"])
    asked[name] = field(name).value;
  return asked;
}

function skeleton(rows) {
  return '<li class="mx-skeleton"><i></i><i></i></li>'.repeat(rows);
}

async function look() {
  const mine = ++search;
  cursor = "";
  list.innerHTML = skeleton(8);
  note.innerHTML = foot.innerHTML = "";
  await more(mine, true);
}

async function more(mine = search, first = false) {
  if (busy === mine) return;
  busy = mine;
  foot.innerHTML = first ? "" : '<span class="mx-soft">Loading more</span>';
  let shown = 0;
  for (let page = 0; page < PAGES && shown < ENOUGH; page++) {
    const answer = await ask("browse", { ...query(), cursor });
    if (mine !== search) return;
    if (first) list.innerHTML = "";
    first = false;
    if (answer.error) {
      (list.children.length ? foot : note).innerHTML = answer.error;
      cursor = "";
      busy = false;
      return;
    }
    if (answer.note) note.innerHTML = answer.note;
    list.insertAdjacentHTML("beforeend", answer.rows);
    shown += answer.count;
    cursor = answer.cursor;
    markRow();
    if (!cursor) break;
  }
  busy = false;
  ending();
}

function ending() {
  if (cursor) foot.innerHTML = '<button type="button" data-do="more">Show more</button>';
  else if (list.children.length) foot.innerHTML = "";
  else foot.innerHTML = '<div class="mx-quiet">' + (field("fits").checked
    ? "Nothing of this kind fits the machine. Choose a larger one, or take the tick away."
    : "Nothing by that name. Try fewer words or filters.") + "</div>";
}

const results = find(".mx-results");
results.addEventListener("scroll", () => {
  if (cursor && !busy && results.scrollHeight - results.scrollTop - results.clientHeight < 400) more();
}, { passive: true });

function markRow() {
  for (const row of list.querySelectorAll(".mx-row"))
    row.setAttribute("aria-current", String(Boolean(current) && row.dataset.open === current.name));
}

// --- one model

async function open(name, keep) {
  const mine = ++opened;
  if (!keep) {
    show("search");
    root.classList.add("mx-open");
  }
  current = { name, label: "" };
  markRow();
  if (!keep) {
    detail.scrollTop = 0;
    detail.innerHTML = `<div class="mx-page mx-waiting">${'<i></i>'.repeat(6)}</div>`;
  }
  const answer = await ask("model", { name });
  if (mine !== opened) return;
  if (answer.error) {
    detail.innerHTML = '<div class="mx-page"><button type="button" class="mx-back" data-do="back">Results</button></div>';
    detail.firstElementChild.insertAdjacentHTML("beforeend", answer.error);
    return;
  }
  current = { name: answer.name, label: answer.label };
  detail.innerHTML = answer.html;
  markRow();
  if (answer.label) plan();
  showDownload();
  const card = await ask("card", { name: answer.name });
  const place = detail.querySelector("[data-card]");
  if (mine === opened && place) place.innerHTML = card.html || card.error || "";
}

function knob(name) {
  return detail.querySelector(`[data-knob="${name}"]`);
}

function knobs() {
  const slider = knob("context");
  const steps = slider.dataset.steps.split(",").map(Number);
  return {
    name: current.name,
    label: current.label,
    context: steps[Number(slider.value)],
    sequences: Number(knob("sequences").value),
    kv_type: knob("kv_type").value,
  };
}

const exactly = later((mine) => fill(mine, true), 350);

function plan() {
  const mine = ++planned;
  const asked = knobs();
  const gguf = asked.label !== "safetensors";
  detail.querySelector('[data-out="context"]').textContent = `${asked.context.toLocaleString("en")} tokens`;
  detail.querySelectorAll(".mx-only-gguf").forEach((node) => (node.hidden = !gguf));
  fill(mine, false);
  exactly(mine);
}

async function fill(mine, exact) {
  if (mine !== planned || !knob("context")) return; // another model is on its way in its place
  const answer = await ask("plan", { ...knobs(), exact });
  const place = detail.querySelector("[data-plan]");
  if (mine !== planned || !place) return;
  place.innerHTML = answer.error || answer.html;
  detail.querySelector("[data-answer]").innerHTML = answer.answer || "";
  if (answer.error) return;
  for (const row of detail.querySelectorAll("[data-offer]")) {
    const label = row.dataset.offer;
    row.querySelector("[data-total]").textContent = answer.totals[label] || "";
    const fit = row.querySelector(".mx-fit");
    const level = answer.levels[label];
    fit.className = `mx-fit mx-${level}`;
    fit.firstElementChild.textContent = { fits: "Fits", tight: "Tight", no: "Too large" }[level] || "";
    for (const mark of row.querySelectorAll(".mx-best")) mark.hidden = level === "no";
  }
}

function setContext(tokens) {
  const slider = knob("context");
  const steps = slider.dataset.steps.split(",").map(Number);
  let at = steps.findIndex((step) => step >= tokens);
  if (at < 0) at = steps.length - 1;
  if (steps[at] !== tokens) steps.splice(at, 0, tokens); // a length of its own becomes a position of its own
  slider.dataset.steps = steps.join(",");
  slider.max = steps.length - 1;
  slider.value = at;
  plan();
}

async function train() {
  const asked = { name: current.name };
  for (const node of detail.querySelectorAll("[data-train]")) {
    const { train: name, steps, unit } = node.dataset;
    asked[name] = steps ? steps.split(",")[Number(node.value)] : node.value;
    const out = detail.querySelector(`[data-train-out="${name}"]`);
    if (out) out.textContent = `${Number(asked[name]).toLocaleString("en")} ${unit}`;
  }
  const mine = ++trained;
  const answer = await ask("training", asked);
  const place = detail.querySelector("[data-train-plan]");
  if (place && mine === trained) place.innerHTML = answer.html || answer.error || "";
}

function chosenId() {
  const row = detail.querySelector(`[data-offer="${CSS.escape(current.label)}"]`);
  return row ? row.dataset.id : "";
}

// --- downloads

let polling = null;
let known = "";

function showDownloads(answer) {
  if (answer.error) return;
  if (answer.html !== known) {
    const focused = document.activeElement && root.contains(document.activeElement) && document.activeElement.dataset.downloadAct
      ? [document.activeElement.dataset.id, document.activeElement.dataset.downloadAct] : null;
    known = answer.html;
    const place = find("[data-downloads]");
    place.innerHTML = answer.html;
    place.hidden = !answer.html;
    if (focused) place.querySelector(`[data-id="${CSS.escape(focused[0])}"]`)?.focus();
    showDownload();
  }
  clearTimeout(polling);
  if (answer.active) polling = setTimeout(poll, root.offsetParent ? 600 : 3000);
}

async function poll() {
  showDownloads(await ask("downloads"));
}

function showDownload() {
  const button = detail.querySelector('[data-do="download"]');
  if (!button) return;
  const id = chosenId();
  const running = [...root.querySelectorAll("[data-download-id]")].find((node) => node.dataset.downloadId === id);
  const state = running ? running.dataset.state : "";
  const row = detail.querySelector(`[data-offer="${CSS.escape(current.label)}"]`);
  button.disabled = ["queued", "running", "done"].includes(state);
  button.textContent = { queued: "Downloading", running: "Downloading", done: "Downloaded", paused: "Resume the download",
    interrupted: "Resume the download", failed: "Try the download again" }[state] ||
    `Download ${current.label}, ${row.cells[1].textContent}`;
}

async function download(act, id) {
  const answer = await ask("download", { act, id });
  if (answer.error) {
    const place = detail.querySelector("[data-download]") || note;
    place.innerHTML = answer.error;
  } else {
    const place = detail.querySelector("[data-download]");
    if (place) place.innerHTML = "";
    showDownloads(answer);
  }
}

// --- the other views

async function show(view) {
  root.dataset.view = view;
  for (const tab of root.querySelectorAll("[role=tab]")) tab.setAttribute("aria-selected", String(tab.dataset.view === view));
  for (const place of root.querySelectorAll("[data-shown]")) place.hidden = place.dataset.shown !== view;
  if (view === "mine") mine();
  if (view === "ratings") rated();
}

async function mine(keys) {
  const place = find("[data-mine]");
  if (!place.childElementCount) place.innerHTML = `<ul>${skeleton(4)}</ul>`;
  const answer = await ask("mine", keys ? { delete: keys } : {});
  place.innerHTML = answer.html || answer.error;
  if (keys) poll(); // the download of what was deleted is not offered any more
}

async function rated(snapshot) {
  trigger("own", {});
  const answer = await ask("rated", { snapshot: Number(snapshot) || 0 });
  find("[data-ratings]").innerHTML = answer.html || answer.error;
}

const versus = later(async () => {
  const names = Object.fromEntries(["one", "other"].map((key) => [key, find(`[data-versus="${key}"]`).value]));
  const answer = await ask("versus", names);
  const place = find("[data-versus-out]");
  if (place) place.textContent = answer.text || "";
}, 250);

async function importTable(file) {
  const answer = await ask("import_ratings", { text: await file.text(), label: file.name });
  const place = find("[data-ratings]");
  if (answer.error) {
    place.querySelector(".mx-error")?.remove();
    place.insertAdjacentHTML("afterbegin", answer.error);
  } else place.innerHTML = answer.html;
}

// --- what a person does

function remove(button) {
  if (button.dataset.sure) return mine(button.dataset.delete);
  button.dataset.sure = "1";
  button.textContent = `Delete, free ${button.dataset.frees}`;
  setTimeout(() => {
    delete button.dataset.sure;
    button.textContent = "Delete";
  }, 4000);
}

const doings = {
  more: () => more(),
  retry: (button) => (button.closest("[data-detail]") ? open(current.name) : button.closest("[data-mine]") ? mine() : look()),
  back: () => root.classList.remove("mx-open"),
  filters: (button) => {
    const extra = find(".mx-extra");
    extra.hidden = !extra.hidden;
    button.setAttribute("aria-expanded", String(!extra.hidden));
  },
  download: () => {
    const id = chosenId();
    const running = [...root.querySelectorAll("[data-download-id]")].some((node) => node.dataset.downloadId === id);
    download(running ? "resume" : "start", id);
  },
  chat: () => trigger("chat", { model: chosenId() }),
  finetune: () => {
    document.documentElement.dataset.mmFinetuneBase = current.name; // for a tab that is not made before it is opened
    document.querySelector("#mm-finetune-tab-button").click();
    document.dispatchEvent(new CustomEvent("mm-finetune-base", { detail: { base: current.name } }));
  },
  import: () => find("[data-import]").click(),
  leaderboard: () => {
    document.querySelector("#mm-chat-tab-button").click();
    document.dispatchEvent(new CustomEvent("mm-leaderboard"));
  },
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  const data = button.dataset;
  if (data.view) show(data.view);
  else if (data.open) open(data.open);
  else if (data.do) doings[data.do]?.(button);
  else if (data.downloadAct === "chat") trigger("chat", { model: data.id });
  else if (data.downloadAct) download(data.downloadAct, data.id);
  else if (data.chat) trigger("chat", { model: data.chat });
  else if (data.delete) remove(button);
  else if (data.setContext) setContext(Number(data.setContext));
  else if (data.setKv) (knob("kv_type").value = data.setKv), plan();
  else if (data.setSequences) (knob("sequences").value = data.setSequences), plan();
  else if (data.copy) copy(button);
});

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.closest(".mm-code").querySelector("pre").textContent);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

const typed = later(look, 300);
const slid = later(() => plan(), 30);
const learnt = later(train, 30);

element.addEventListener("input", (event) => {
  const data = event.target.dataset;
  if (["text", "author", "smallest", "largest"].includes(data.field)) typed();
  else if (data.field === "typed") moved();
  else if (data.knob) slid();
  else if (data.train) learnt();
  else if (data.versus) versus();
});

const moved = later(() => {
  look();
  if (current) open(current.name, true);
}, 500);

element.addEventListener("change", (event) => {
  const node = event.target;
  const data = node.dataset;
  if (data.field === "machine") {
    field("typed").hidden = node.value !== "?";
    if (node.value === "?") field("typed").focus();
    else moved();
  } else if (["sort", "library", "task", "licence", "gated", "fits"].includes(data.field)) look();
  else if (node.name === "mx-offer") {
    current.label = node.value;
    plan();
    showDownload();
  } else if ("snapshot" in data) rated(node.value);
  else if ("import" in data && node.files.length) {
    importTable(node.files[0]);
    node.value = "";
  }
});

element.addEventListener("toggle", (event) => {
  if (event.target.matches("[data-training]") && event.target.open) train();
}, true);

field("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && /^[\w.-]+\/[\w.-]+$/.test(field("text").value.trim())) open(field("text").value.trim());
  if (event.key === "ArrowDown") list.querySelector(".mx-row")?.focus(), event.preventDefault();
});
list.addEventListener("keydown", (event) => {
  const row = event.target.closest("li");
  const next = event.key === "ArrowDown" ? row?.nextElementSibling : event.key === "ArrowUp" ? row?.previousElementSibling : null;
  if (next) next.querySelector(".mx-row")?.focus(), event.preventDefault();
});

watch("value", () => props.value?.own !== undefined && (find("[data-own]").innerHTML = props.value.own));

// The tab asks nobody before it is seen.
new IntersectionObserver((seen) => {
  if (started || !seen.some((entry) => entry.isIntersecting)) return;
  started = true;
  look();
  poll();
  ask("machines").then((answer) => answer.html && (field("machine").innerHTML = answer.html));
}).observe(root);
