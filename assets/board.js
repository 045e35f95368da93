// The board in the page. The server sends whole states (watch 'value') and, while anything is being answered, a stream
// of what changes (tabs/live.py); this puts them in place, touching only what changed, and reports what a person does
// as the event 'act' {op, key, model}. Texts come as finished, escaped HTML.
const columns = element.querySelector(".mm-columns");
const strip = element.querySelector(".mm-strip");
const picker = element.querySelector(".mm-picker");
const field = picker.querySelector("input");
const options = picker.querySelector(".mm-options");
const problem = element.querySelector(".mm-problem");
const blueprint = element.querySelector(".mm-column-template");
const growing = element.querySelector(".mm-live-template");
const PART = 30; // blocks of a running answer
let state = null; // what the server last said
const answers = new Map(); // by column: its running answer as far as it has come
let picking = null; // key of the column whose model is being chosen
let entries = [];
let active = -1;

// --- states of the server

function setHTML(node, html) {
  if (node.mmHTML !== html) {
    node.mmHTML = html;
    node.innerHTML = html;
  }
}

function nearEnd(body) {
  return body.scrollHeight - body.scrollTop - body.clientHeight < 60;
}

function toEnd(bodies) {
  for (const body of bodies) body.scrollTop = body.scrollHeight;
}

function showTurns(holder, turns) {
  while (holder.children.length > turns.length) holder.lastElementChild.remove();
  turns.forEach((html, i) => {
    const node = holder.children[i] || holder.appendChild(document.createElement("article"));
    node.className = "mm-turn";
    setHTML(node, html);
  });
}

// The newest turn may still change its height.
function keepHeights() {
  const earlier = [...columns.querySelectorAll(".mm-turn:not(:last-child, [data-far])")].filter((node) => node.mmHTML);
  const heights = earlier.map((node) => node.offsetHeight);
  earlier.forEach((node, i) => keepHeight(node, heights[i]));
}

// What is far from the screen is laid out only when it comes near; it keeps its height, or the scroll position would jump.
function keepHeight(node, height) {
  node.style.containIntrinsicSize = `auto ${height}px`;
  node.dataset.far = "1";
}

// A running answer: finished blocks are only ever added, what may still change is put in anew.
function showAnswer(holder, answer) {
  if (holder.mmAnswer !== answer) {
    holder.replaceChildren();
    holder.mmAnswer = answer;
    if (answer) {
      holder.innerHTML = answer.asked;
      holder.append(growing.content.firstElementChild.cloneNode(true));
    }
  }
  if (!answer) return;
  setHTML(holder.querySelector(".mm-wait"), answer.wait);
  setHTML(holder.querySelector(".mm-foot"), answer.foot);
  showThoughts(holder.querySelector(".mm-thoughts"), answer);
  if (answer.tail || answer.blocks.length) showText(holder, answer);
}

function showText(holder, answer) {
  let node = holder.querySelector(".mm-md");
  if (!node) {
    node = document.createElement("div");
    node.className = "mm-md mm-growing";
    holder.querySelector(".mm-foot").before(node);
    holder.querySelector(".mm-thoughts").open = false;
  }
  if (node.mmBlocks !== answer.blocks) {
    Object.assign(node, { mmBlocks: answer.blocks, mmShown: 0, mmTail: null });
    node.replaceChildren(part());
  }
  const added = answer.blocks.slice(node.mmShown);
  if (!added.length && node.mmTail === answer.tail) return;
  while (!node.lastChild.matches?.(".mm-part")) node.lastChild.remove();
  for (const html of added) {
    if (node.lastChild.childElementCount >= PART && !/^<h/.test(html)) {
      node.lastChild.classList.add("mm-whole");
      node.append(part());
    }
    node.lastChild.insertAdjacentHTML("beforeend", html);
  }
  Object.assign(node, { mmShown: answer.blocks.length, mmTail: answer.tail });
  node.insertAdjacentHTML("beforeend", answer.tail);
}

// Finished blocks lie in parts, or the browser would look at each of them in every update. A part begins with a block
// that has no margin above, for the margins of two parts do not collapse.
function part() {
  const made = document.createElement("div");
  made.className = "mm-part";
  return made;
}

function showThoughts(node, { thoughts }) {
  const text = node.querySelector("div");
  node.hidden = !thoughts;
  if (!thoughts || text.mmText === thoughts) return;
  if (text.firstChild && thoughts.startsWith(text.mmText)) text.firstChild.appendData(thoughts.slice(text.mmText.length));
  else text.textContent = thoughts;
  text.mmText = thoughts;
}

function columnNode(key) {
  return columns.querySelector(`[data-key="${key}"]`);
}

// Whether a column is to be shown from its end: it was, or it is new, or was asked something just now.
function atEnd(column) {
  const node = columnNode(column.key);
  if (!node || nearEnd(node.querySelector(".mm-body"))) return true;
  const shown = node.querySelectorAll(".mm-turn").length;
  return !node.classList.contains("mm-running") && (column.running || column.turns.length > shown);
}

function showColumn(column, index, count) {
  let node = columnNode(column.key);
  if (!node) {
    node = blueprint.content.firstElementChild.cloneNode(true);
    node.dataset.key = column.key;
  }
  node.dataset.index = index;
  node.classList.toggle("mm-running", column.running);
  node.classList.toggle("mm-own", column.own);
  node.setAttribute("aria-label", `${column.name}, ${column.backend}`);
  node.querySelector(".mm-model-name").textContent = column.name;
  node.querySelector(".mm-model-backend").textContent = column.backend;
  node.querySelector(".mm-model").title = `${column.id}: choose a model`;
  showSpent(node.querySelector(".mm-spent"), column.spent);
  node.querySelector('[data-act="left"]').disabled = index === 0;
  node.querySelector('[data-act="right"]').disabled = index === count - 1;
  node.querySelector('[data-act="remove"]').disabled = count === 1;
  node.querySelector('[data-act="regenerate"]').disabled = !column.turns.length;
  node.querySelector('[data-act="clear"]').disabled = !column.turns.length && !column.running;
  showTurns(node.querySelector(".mm-turns"), column.turns);
  showAnswer(node.querySelector(".mm-live"), answers.get(column.key));
  node.querySelector(".mm-blank").hidden = column.turns.length > 0 || column.running;
  if (columns.children[index] !== node) columns.insertBefore(node, columns.children[index] || null);
}

// Heights mean nothing before all columns are there: each takes width from the others.
function showColumns(list) {
  const ends = list.filter(atEnd);
  list.forEach((column, i) => showColumn(column, i, list.length));
  columns.dataset.count = list.length;
  keepHeights();
  toEnd(ends.map(({ key }) => columnNode(key).querySelector(".mm-body")));
}

function showSpent(node, [text, title]) {
  node.textContent = text;
  node.title = title;
}

function showStrip(list) {
  const names = list.map((c) => [c.key, c.name, c.backend, c.running].join()).join("|");
  if (strip.mmNames === names) return;
  strip.mmNames = names;
  strip.replaceChildren(
    ...list.map((column, i) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.setAttribute("role", "tab");
      tab.dataset.goto = column.key;
      tab.dataset.index = i;
      const alike = list.filter((other) => other.name === column.name);
      const same = alike.filter((other) => other.backend === column.backend);
      const by = same.length > 1 ? ` (${i + 1})` : alike.length > 1 ? ` (${column.backend})` : "";
      tab.textContent = column.name + by;
      tab.classList.toggle("mm-running", column.running);
      return tab;
    })
  );
  markStrip();
}

function markStrip() {
  const at = Math.round(columns.scrollLeft / Math.max(1, columns.clientWidth));
  [...strip.children].forEach((tab, i) => tab.setAttribute("aria-selected", String(i === at)));
  const tab = strip.children[at];
  if (tab) strip.scrollLeft = Math.min(tab.offsetLeft, Math.max(tab.offsetLeft + tab.offsetWidth - strip.clientWidth, strip.scrollLeft));
}

function show() {
  if (!state) return;
  const keys = new Set(state.columns.map((c) => c.key));
  [...columns.children].forEach((node) => keys.has(node.dataset.key) || node.remove());
  showColumns(state.columns);
  showStrip(state.columns);
  const root = document.documentElement.dataset;
  root.mmRunning = state.running ? "1" : "0";
  const add = document.getElementById("mm-add");
  add.disabled = state.full;
  add.title = state.full ? `${state.columns.length} columns are the most` : "Add column";
  root.mmEmpty = state.empty ? "1" : "0";
  root.mmRevision = state.revision;
  window.mmShowing(state.chat);
  document.getElementById("mm-undo").disabled = !state.undo;
  showSpent(document.querySelector("#mm-spent span"), state.spent);
  tell(state.problem);
  window.mmState = state; // for what else in the page depends on it
  document.dispatchEvent(new Event("mm-state"));
}

// --- editing a prompt in its place

function edit(button) {
  const turn = button.closest(".mm-turn");
  const prompt = turn.querySelector(".mm-prompt");
  const form = element.querySelector(".mm-edit-template").content.firstElementChild.cloneNode(true);
  const text = form.querySelector("textarea");
  text.value = prompt.textContent;
  form.dataset.turn = button.dataset.edit;
  turn.querySelector(".mm-asked").replaceWith(form);
  text.style.height = `${Math.min(text.scrollHeight + 2, 320)}px`;
  text.focus();
  text.setSelectionRange(text.value.length, text.value.length);
}

function leaveEdit(turn) {
  turn.mmHTML = null;
  show();
}

function sendEdit(form, everywhere) {
  const turn = form.closest(".mm-turn");
  const event = { op: "edit", key: form.closest(".mm-column").dataset.key, turn: Number(form.dataset.turn) };
  if (form.querySelector("textarea").value.trim())
    trigger("act", { ...event, prompt: form.querySelector("textarea").value, everywhere });
  leaveEdit(turn);
}

element.addEventListener("keydown", (event) => {
  const form = event.target.closest(".mm-edit");
  if (!form) return;
  if (event.key === "Escape") leaveEdit(form.closest(".mm-turn"));
  else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) sendEdit(form, false);
  else return;
  event.preventDefault();
  event.stopPropagation();
});

// --- choosing a model

function matches(entry, words) {
  const text = `${entry.id} ${entry.label} ${entry.group} ${entry.detail}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

function line(className, text) {
  const node = document.createElement("span");
  node.className = className;
  node.textContent = text;
  return node;
}

function option(entry) {
  const node = document.createElement("div");
  node.setAttribute("role", "option");
  node.className = "mm-option";
  node.dataset.model = entry.id;
  node.append(line("mm-option-name", entry.label));
  node.append(line("mm-option-detail", entry.unavailable || entry.detail));
  if (entry.unavailable) node.setAttribute("aria-disabled", "true");
  return node;
}

function list() {
  const typed = field.value.trim();
  const found = entries.filter((entry) => matches(entry, typed.toLowerCase().split(/\s+/)));
  const nodes = [];
  if (typed.includes(":") && !entries.some((entry) => entry.id === typed))
    nodes.push(option({ id: typed, label: typed, detail: "Use this id" }));
  let group = "";
  for (const entry of found) {
    if (entry.group !== group) nodes.push(line("mm-group", (group = entry.group)));
    nodes.push(option(entry));
  }
  if (!nodes.length) nodes.push(line("mm-none", "Nothing by that name. Type a full id, for example gguf:OWNER/REPO:Q4_K_M"));
  options.replaceChildren(...nodes);
  const choices = selectable();
  activate(typed ? 0 : choices.findIndex((node) => node.dataset.model === picker.dataset.current));
}

function selectable() {
  return [...options.querySelectorAll(".mm-option")];
}

function activate(index) {
  const choices = selectable();
  active = choices.length ? Math.max(0, Math.min(index, choices.length - 1)) : -1;
  choices.forEach((node, i) => {
    node.id = `mm-option-${i}`;
    node.setAttribute("aria-selected", String(i === active));
  });
  if (active >= 0) {
    choices[active].scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", `mm-option-${active}`);
  }
}

async function open(button) {
  const column = button.closest(".mm-column");
  picking = column.dataset.key;
  picker.dataset.current = state.columns.find((c) => c.key === picking).id;
  column.querySelector(".mm-head").append(picker);
  picker.hidden = false;
  field.value = "";
  field.focus();
  list();
  entries = (await server.models()) || [];
  if (picking) list();
}

function close(refocus) {
  if (!picking) return;
  const column = picker.closest(".mm-column");
  picking = null;
  picker.hidden = true;
  if (refocus && column) column.querySelector(".mm-model").focus();
  element.append(picker); // a removed column must not take it along
}

function choose(model) {
  const key = picking;
  close(true);
  if (model) trigger("act", { op: "choose", key, model });
}

field.addEventListener("input", list);
field.addEventListener("keydown", (event) => {
  const choices = selectable();
  if (event.key === "ArrowDown") activate(active + 1);
  else if (event.key === "ArrowUp") activate(active - 1);
  else if (event.key === "Enter") choose(choices[active] ? choices[active].dataset.model : field.value.trim());
  else if (event.key === "Escape") close(true);
  else if (event.key === "Tab") return close(false);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
document.addEventListener("pointerdown", (event) => {
  if (picking && !picker.contains(event.target) && !event.target.closest('[data-open="picker"]')) close(false);
});

// --- what a person does

async function copy(button) {
  const code = button.dataset.copy === "code";
  const source = code
    ? button.closest(".mm-code").querySelector("pre").textContent
    : button.parentElement.querySelector(".mm-raw").content.textContent;
  try {
    await navigator.clipboard.writeText(source);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button, .mm-option");
  if (!button || button.disabled) return;
  const column = button.closest(".mm-column");
  if (button.dataset.copy) copy(button);
  else if (button.dataset.open) picking === column.dataset.key ? close(true) : open(button);
  else if (button.dataset.model) choose(button.dataset.model);
  else if (button.dataset.goto)
    columnNode(button.dataset.goto).scrollIntoView({ inline: "start", block: "nearest" });
  else if (button.dataset.edit) edit(button);
  else if (button.dataset.send) sendEdit(button.closest(".mm-edit"), button.dataset.send === "all");
  else if (button.dataset.results) {
    const results = [...button.closest(".mm-calls").querySelectorAll("textarea")].map((field) => field.value);
    trigger("act", { op: "results", key: column.dataset.key, turn: Number(button.dataset.results), results });
  } else if (button.dataset.cancel) leaveEdit(button.closest(".mm-turn"));
  else if (button.dataset.act) {
    const turn = button.dataset.turn ? { turn: Number(button.dataset.turn) } : {};
    button.closest("details")?.removeAttribute("open");
    trigger("act", { op: button.dataset.act, key: column.dataset.key, ...turn });
  }
});
element.addEventListener("toggle", ({ target: menu }) => {
  if (!menu.matches(".mm-menu[open]")) return;
  const above = menu.getBoundingClientRect().top - menu.closest(".mm-body").getBoundingClientRect().top;
  const rows = menu.querySelector("div");
  menu.classList.toggle("mm-down", above < rows.offsetHeight + 8);
  rows.scrollIntoView({ block: "nearest", inline: "nearest" }); // in a low column it may reach below the end
}, true);
document.addEventListener("pointerdown", (event) => {
  for (const menu of element.querySelectorAll(".mm-menu[open]"))
    if (!menu.contains(event.target)) menu.removeAttribute("open");
});
element.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest(".mm-menu[open]");
  if (!menu) return;
  menu.removeAttribute("open");
  menu.querySelector("summary").focus();
});
columns.addEventListener("scroll", () => requestAnimationFrame(markStrip), { passive: true });

// --- running answers

let connection = null; // an AbortController
let tries = 0;
let due = false; // whether an update of the page is on its way
let whole = false; // whether it must look at more than the running answers
let rest = 0; // the time before which the page has other things to do

// What is new of a running answer; `asked` begins it.
function take(key, news) {
  if (news.asked !== undefined) answers.set(key, { asked: news.asked, wait: "", foot: "", tail: "", blocks: [], thoughts: "" });
  const answer = answers.get(key);
  if (!answer) return;
  for (const name of ["wait", "foot", "tail"]) if (name in news) answer[name] = news[name];
  if (news.thoughts) answer.thoughts = (news.thoughts[0] ? answer.thoughts : "") + news.thoughts[1];
  if (news.blocks && news.keep) answer.blocks.push(...news.blocks);
  else if (news.blocks) answer.blocks = news.blocks;
}

function takeView(view, mine) {
  if (!view || !view.columns) return;
  state = { ...view, columns: view.columns.map((column) => ({ ...column, turns: [...column.turns] })) };
  for (const { key, running, live } of state.columns) {
    const known = mine && running && answers.get(key)?.asked === live.asked; // the stream is further than this
    if (!running) answers.delete(key);
    else if (!known) take(key, live);
  }
  whole = true;
}

function takeLine(news) {
  if (news.view) takeView(news.view, false);
  for (const [key, change] of Object.entries(news.columns || {})) {
    const column = state.columns.find((c) => c.key === key);
    if (column && "turn" in change) {
      const { at, turn, ...head } = change;
      column.turns[at] = turn;
      Object.assign(column, head);
      answers.delete(key);
      whole = true;
    } else if (column) take(key, change);
  }
  if (news.board || news.end) {
    Object.assign(state, news.board, news.end);
    whole = true;
  }
}

function showAnswers() {
  const nodes = [...columns.children].filter((node) => answers.has(node.dataset.key));
  const bodies = nodes.map((node) => node.querySelector(".mm-body"));
  const stuck = bodies.filter(nearEnd);
  const far = nodes.flatMap((node) => [...node.querySelectorAll(".mm-whole:not([data-far])")]);
  const heights = far.map((part) => part.offsetHeight);
  far.forEach((part, i) => keepHeight(part, heights[i]));
  nodes.forEach((node) => showAnswer(node.querySelector(".mm-live"), answers.get(node.dataset.key)));
  toEnd(stuck);
}

// Updates take at most about a third of the page's time, however slow the machine: what comes meanwhile waits.
function update() {
  const began = performance.now();
  due = false;
  whole ? show() : showAnswers();
  whole = false;
  setTimeout(() => (rest = performance.now() + 1.8 * (performance.now() - began)));
}

function soon() {
  if (due) return;
  due = true;
  const pause = Math.max(0, rest - performance.now());
  setTimeout(() => (document.hidden ? update() : requestAnimationFrame(update)), pause);
}

async function read(controller, revision) {
  const running = state.columns.filter((column) => column.running).map((column) => column.key);
  const body = JSON.stringify({ address: state.address, revision, running });
  const reply = await fetch(new URL("chat/live", document.baseURI), { method: "POST", body, signal: controller.signal });
  if (!reply.ok) throw new Error(await reply.text());
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = "", ended = false; !ended; ) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The stream broke off.");
    const lines = (text + value).split("\n");
    text = lines.pop();
    if (controller !== connection) return;
    for (const news of lines.map((json) => JSON.parse(json))) {
      takeLine(news);
      ended = ended || news.end;
    }
    tries = 0;
    if (lines.some((json) => json !== "{}")) soon();
  }
}

// Follow what is being answered; `revision` is that of the page, null to be sent the whole board.
async function follow(revision) {
  connection?.abort();
  const controller = (connection = new AbortController());
  try {
    await read(controller, revision);
    if (controller === connection) connection = null;
  } catch {
    if (controller !== connection) return;
    tries += 1;
    if (tries > 1) tell("The connection to the app is lost. What it is answering goes on there; trying again.");
    setTimeout(() => controller === connection && follow(null), Math.min(500 * 2 ** tries, 10_000));
  }
}

function tell(text) {
  problem.hidden = !text;
  if (problem.textContent !== text) problem.textContent = text;
}

// A page that was away: other tabs may have gone on, and a telephone drops its connections.
let away = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) away = Date.now();
  else if (Date.now() - away > 2000 && state) follow(null);
});

function start() {
  takeView(props.value, true);
  if (!state) return;
  show();
  whole = false;
  if (state.partial) follow(null);
  else if (state.running) follow(state.revision);
  else connection = connection?.abort();
}

window.mmBoardAddress = () => props.value.address;
watch("value", start);
start();
