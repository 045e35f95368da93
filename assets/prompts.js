// The library of prompts. The server sends names, texts and variables (watch 'value'); what a person does is reported
// as the event 'act' {op, name, ...}. "/" in the empty prompt box opens a list above it: arrows, Enter, Escape.
const { make, save, read } = window.mmParts;
const dialog = element.querySelector("dialog");
const listing = dialog.querySelector(".mm-library-list");
const search = dialog.querySelector('input[type="search"]');
const said = dialog.querySelector(".mm-library-said");
const rows = dialog.querySelector(".mm-library-rows");
const form = dialog.querySelector("form");
const [nameField, textField] = form.querySelectorAll("input, textarea");
const refused = form.querySelector(".mm-warn");
const file = dialog.querySelector('input[type="file"]');
const palette = element.querySelector(".mm-palette");
const options = palette.querySelector(".mm-palette-list");
const gaps = palette.querySelector(".mm-palette-gaps");
const box = () => document.querySelector("#mm-prompt textarea");
const MANAGE = ["", "", []];
let was = ""; // the name of the prompt that is being edited; "" for a new one
let found = [];
let active = 0;

function act(op, more) {
  trigger("act", { op, ...more });
}

function prompts() {
  return props.value?.prompts || [];
}

function matching(words) {
  const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
  const within = (text) => parts.every((part) => text.toLowerCase().includes(part));
  const named = prompts().filter(([name]) => within(name));
  return [...named, ...prompts().filter(([name, text]) => !within(name) && within(`${name} ${text}`))];
}

// --- into the prompt box

function write(text) {
  const field = box();
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
  field.setSelectionRange(text.length, text.length);
}

function fill(text, values) {
  return text.replace(/\{\{\s*([^{}\n]{1,60}?)\s*\}\}/g, (gap, name) => values.get(name) ?? gap);
}

function use([, text, variables]) {
  if (!variables.length) {
    shut();
    return write(text);
  }
  palette.hidden = false;
  options.hidden = true;
  gaps.hidden = false;
  gaps.replaceChildren(
    ...variables.map((name) => {
      const label = make("label", "", name);
      const field = make("textarea");
      field.rows = 1;
      field.dataset.name = name;
      label.append(field);
      return label;
    })
  );
  const insert = make("button", "mm-primary", "Insert");
  gaps.append(insert);
  gaps.onsubmit = (event) => {
    event.preventDefault();
    const values = new Map([...gaps.querySelectorAll("textarea")].map((field) => [field.dataset.name, field.value]));
    shut();
    write(fill(text, values));
  };
  place();
  gaps.querySelector("textarea").focus();
}

// --- the list that "/" opens

function place() {
  const at = document.getElementById("mm-prompt-row").getBoundingClientRect();
  palette.style.left = `${at.left}px`;
  palette.style.width = `${Math.min(560, at.width)}px`;
  palette.style.bottom = `${innerHeight - at.top + 6}px`;
}

function open() {
  if (!props.value?.prompts) act("open");
  palette.hidden = options.hidden = false;
  gaps.hidden = true;
  active = 0;
  list();
}

function shut() {
  palette.hidden = true;
  for (const name of ["aria-controls", "aria-activedescendant", "aria-expanded"]) box().removeAttribute(name);
}

function list() {
  found = [...matching(box().value.slice(1)), MANAGE];
  options.replaceChildren(
    ...found.map((item, index) => {
      const made = make("div", "mm-option");
      made.id = `mm-palette-${index}`;
      made.setAttribute("role", "option");
      made.dataset.index = index;
      const manage = item === MANAGE;
      made.append(make("span", "mm-option-name", manage ? "Prompt library" : item[0]));
      made.append(make("span", "mm-option-detail", manage ? "Save, edit, import" : item[1].slice(0, 200)));
      return made;
    })
  );
  if (found.length === 1 && box().value !== "/") return shut(); // an ordinary text that begins with "/"
  box().setAttribute("aria-controls", "mm-palette-list");
  box().setAttribute("aria-expanded", "true");
  place();
  mark(active);
}

function mark(index) {
  active = Math.max(0, Math.min(index, found.length - 1));
  [...options.children].forEach((node, i) => node.setAttribute("aria-selected", String(i === active)));
  options.children[active].scrollIntoView({ block: "nearest" });
  box().setAttribute("aria-activedescendant", `mm-palette-${active}`);
}

function choose(item) {
  if (item !== MANAGE) return use(item);
  shut();
  write("");
  show();
}

document.addEventListener("input", (event) => {
  if (event.target !== box()) return;
  const typed = event.target.value;
  if (typed === "/" && palette.hidden) open();
  else if (!palette.hidden && !options.hidden) typed.startsWith("/") ? list() : shut();
});
document.addEventListener(
  "keydown",
  (event) => {
    if (event.target !== box() || palette.hidden || options.hidden || event.isComposing) return;
    if (event.key === "ArrowDown") mark(active + 1);
    else if (event.key === "ArrowUp") mark(active - 1);
    else if (event.key === "Enter" || event.key === "Tab") choose(found[active]);
    else if (event.key === "Escape") shut();
    else return;
    event.preventDefault();
    event.stopPropagation(); // before Gradio's own Enter
  },
  true
);
gaps.addEventListener("keydown", (event) => {
  const fields = [...gaps.querySelectorAll("textarea")];
  if (event.key === "Escape") {
    shut();
    box().focus();
  } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.matches("textarea")) {
    (fields[fields.indexOf(event.target) + 1] || gaps.querySelector("button")).focus();
    if (event.target === fields.at(-1)) gaps.requestSubmit();
  } else return;
  event.preventDefault();
  event.stopPropagation();
});
options.addEventListener("pointerdown", (event) => {
  const option = event.target.closest(".mm-option");
  if (!option) return;
  event.preventDefault();
  choose(found[Number(option.dataset.index)]);
});
document.addEventListener("pointerdown", (event) => {
  if (!palette.hidden && !palette.contains(event.target) && event.target !== box()) shut();
});
addEventListener("resize", () => palette.hidden || place());

// --- the dialog

function row([name, text]) {
  const made = make("div", "mm-library-row");
  made.setAttribute("role", "listitem");
  const button = make("button", "mm-library-use");
  button.append(make("span", "mm-preset-name", name), make("span", "mm-preset-detail", text.slice(0, 300)));
  button.title = "Put it into the prompt box";
  const edit = make("button", "mm-icon mm-i-edit", `Edit ${name}`);
  const remove = make("button", "mm-icon mm-i-clear", `Delete ${name}`);
  for (const [node, op] of [[button, "use"], [edit, "edit"], [remove, "delete"]]) {
    node.type = "button";
    Object.assign(node.dataset, { prompt: op, name });
  }
  edit.title = "Edit";
  remove.title = "Delete";
  made.append(button, edit, remove);
  return made;
}

function fillRows() {
  const shown = matching(search.value);
  const key = JSON.stringify([shown, prompts().length]);
  if (rows.mmShown === key) return; // a press must meet the button that it began on
  rows.mmShown = key;
  const none = prompts().length ? "No prompt like that." : "Save a prompt here, and insert it by / in the empty prompt box.";
  rows.replaceChildren(...(shown.length ? shown.map(row) : [make("p", "", none)]));
}

function tell({ problem, said: words, deleted }) {
  const parts = [];
  if (problem) parts.push(make("div", "mm-warn", problem));
  if (words) parts.push(make("span", "", words));
  if (deleted) {
    const undo = make("button", "", "Undo");
    undo.dataset.prompt = "restore";
    parts.push(make("span", "", `Deleted: ${deleted[0]}`), undo);
  }
  said.replaceChildren(...parts);
}

function show() {
  act("open");
  search.value = "";
  turn(false);
  fillRows();
  said.replaceChildren();
  dialog.showModal();
  search.focus();
}

function turn(editing) {
  form.hidden = !editing;
  listing.hidden = editing;
  refused.hidden = true;
}

function edit([name, text]) {
  was = name;
  nameField.value = name;
  textField.value = text;
  turn(true);
  (name || !text ? nameField : textField).focus();
  if (!name) nameField.focus();
}

const ACTIONS = {
  close: () => dialog.close(),
  cancel: () => turn(false),
  new: () => edit(["", ""]),
  "choose-file": () => file.click(),
  restore: () => act("restore", { text: props.value.deleted[1] }),
  use: (name) => {
    dialog.close();
    use(prompts().find((item) => item[0] === name));
  },
  edit: (name) => edit(prompts().find((item) => item[0] === name)),
};

dialog.addEventListener("click", (event) => {
  const button = event.target.closest("[data-prompt]");
  if (event.target === dialog) dialog.close();
  if (!button) return;
  const { prompt, name } = button.dataset;
  if (ACTIONS[prompt]) ACTIONS[prompt](name);
  else act(prompt, { name });
});
rows.addEventListener("keydown", (event) => {
  const stops = [...rows.querySelectorAll(".mm-library-use")];
  const at = stops.indexOf(event.target) + { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!stops[at]) return;
  stops[at].focus();
  event.preventDefault();
});
search.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown" && event.key !== "Enter") return;
  event.preventDefault();
  rows.querySelector("button")?.[event.key === "Enter" ? "click" : "focus"]();
});
search.addEventListener("input", fillRows);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  act("save", { name: nameField.value, text: textField.value, was });
});
file.addEventListener("change", () => read(file, (text) => act("import", { text }), (problem) => tell({ problem })));

window.mmPrompts = {
  show,
  keep() {
    const text = box().value;
    show();
    edit(["", text]);
  },
};

watch("value", () => {
  const state = props.value;
  if (!state?.prompts) return;
  if (!palette.hidden && !options.hidden) list();
  if (!dialog.open) return;
  if (!form.hidden && state.problem) {
    refused.textContent = state.problem;
    refused.hidden = false;
    return;
  }
  if (!form.hidden && state.saved) turn(false);
  fillRows();
  tell(state.saved ? { said: `Saved: ${state.saved}` } : state);
  if (state.download) save(state.download);
});
