// The board in the page. The server sends whole states (watch 'value'); this puts them in place, touching only what
// changed, and reports what a person does as the event 'act' {op, key, model}. Texts come as finished, escaped HTML.
const columns = element.querySelector(".mm-columns");
const strip = element.querySelector(".mm-strip");
const picker = element.querySelector(".mm-picker");
const field = picker.querySelector("input");
const options = picker.querySelector(".mm-options");
const problem = element.querySelector(".mm-problem");
const blueprint = element.querySelector(".mm-column-template");
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

function showTurns(holder, turns) {
  while (holder.children.length > turns.length) holder.lastElementChild.remove();
  turns.forEach((html, i) => {
    const node = holder.children[i] || holder.appendChild(document.createElement("article"));
    node.className = "mm-turn";
    setHTML(node, html);
  });
  // Earlier turns are laid out only when they come near; they keep their height, or the scroll position would jump.
  const earlier = [...holder.children].slice(0, -1).filter((node) => node.mmHTML && !node.dataset.far);
  const heights = earlier.map((node) => node.offsetHeight);
  earlier.forEach((node, i) => {
    node.style.containIntrinsicSize = `auto ${heights[i]}px`;
    node.dataset.far = "1";
  });
}

function showColumn(column, index, count) {
  let node = columns.querySelector(`[data-key="${column.key}"]`);
  if (!node) {
    node = blueprint.content.firstElementChild.cloneNode(true);
    node.dataset.key = column.key;
  }
  const body = node.querySelector(".mm-body");
  const shown = node.querySelectorAll(".mm-turn").length;
  const asked = !node.classList.contains("mm-running") && (column.running || column.turns.length > shown);
  const stick = asked || nearEnd(body);
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
  setHTML(node.querySelector(".mm-live"), column.live);
  node.querySelector(".mm-blank").hidden = column.turns.length > 0 || column.running;
  if (columns.children[index] !== node) columns.insertBefore(node, columns.children[index] || null);
  if (stick) body.scrollTop = body.scrollHeight;
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
      const twice = list.some((other) => other !== column && other.name === column.name);
      tab.textContent = twice ? `${column.name} (${column.backend})` : column.name;
      tab.classList.toggle("mm-running", column.running);
      return tab;
    })
  );
  markStrip();
}

function markStrip() {
  const at = Math.round(columns.scrollLeft / Math.max(1, columns.clientWidth));
  [...strip.children].forEach((tab, i) => tab.setAttribute("aria-selected", String(i === at)));
}

function show(state) {
  if (!state || !state.columns) return;
  const keys = new Set(state.columns.map((c) => c.key));
  [...columns.children].forEach((node) => keys.has(node.dataset.key) || node.remove());
  state.columns.forEach((column, i) => showColumn(column, i, state.columns.length));
  columns.dataset.count = state.columns.length;
  showStrip(state.columns);
  const root = document.documentElement.dataset;
  root.mmRunning = state.running ? "1" : "0";
  document.getElementById("mm-add").disabled = state.full;
  root.mmEmpty = state.empty ? "1" : "0";
  root.mmRevision = state.revision;
  window.mmShowing(state.chat);
  document.getElementById("mm-undo").disabled = !state.undo;
  showSpent(document.querySelector("#mm-spent span"), state.spent);
  problem.hidden = !state.problem;
  if (problem.textContent !== state.problem) problem.textContent = state.problem;
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
  show(props.value);
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
  const state = props.value.columns.find((c) => c.key === picking);
  picker.dataset.current = state.id;
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
    columns.querySelector(`[data-key="${button.dataset.goto}"]`).scrollIntoView({ inline: "start", block: "nearest" });
  else if (button.dataset.edit) edit(button);
  else if (button.dataset.send) sendEdit(button.closest(".mm-edit"), button.dataset.send === "all");
  else if (button.dataset.cancel) leaveEdit(button.closest(".mm-turn"));
  else if (button.dataset.act) {
    const turn = button.dataset.turn ? { turn: Number(button.dataset.turn) } : {};
    button.closest("details")?.removeAttribute("open");
    trigger("act", { op: button.dataset.act, key: column.dataset.key, ...turn });
  }
});
element.addEventListener("toggle", ({ target: menu }) => {
  if (!menu.matches(".mm-menu[open]")) return;
  const above = menu.getBoundingClientRect().top - menu.closest(".mm-body").getBoundingClientRect().top;
  menu.classList.toggle("mm-down", above < menu.querySelector("div").offsetHeight + 8);
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

// --- a page that was away: other tabs may have gone on, and a telephone drops its connections

let away = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) away = Date.now();
  else if (Date.now() - away > 2000 && props.value?.columns?.length)
    trigger("act", { op: "refresh", key: props.value.columns[0].key });
});

watch("value", () => show(props.value));
show(props.value);
