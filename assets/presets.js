// The menu of presets. The server sends names and details (watch 'value'); what a person does is reported as the event
// 'act' {op, name, ...}. Names only ever become text.
const rows = element.querySelector(".mm-presets-rows");
const said = element.querySelector(".mm-presets-said");
const form = element.querySelector("form");
const field = form.querySelector("input");
const file = element.querySelector('input[type="file"]');
const { make, save, read } = window.mmParts;
let opened = ""; // the name whose own menu is open

function act(op, more) {
  trigger("act", { op, ...more });
}

function press(text, preset, name, stay = true) {
  const made = make("button", "", text);
  made.type = "button";
  Object.assign(made.dataset, { preset, name });
  if (stay) made.dataset.stay = "1";
  return made;
}

function row([name, detail], builtIn) {
  const made = make("div", "mm-preset");
  const apply = press(undefined, "apply", name, false);
  apply.className = "mm-preset-apply";
  if (builtIn) apply.dataset.builtIn = "1";
  const title = make("span", "mm-preset-name", name);
  if (!builtIn && name === props.value.chosen) title.append(make("small", "", "new chats"));
  apply.append(title, make("span", "mm-preset-detail", detail));
  made.append(apply);
  if (builtIn) return made;
  const more = press(`More to do with ${name}`, "more", name);
  more.className = "mm-icon mm-i-more";
  more.title = "Update, rename or delete; use for new chats";
  more.setAttribute("aria-expanded", String(opened === name));
  made.append(more);
  if (opened === name) made.append(tools(name));
  return made;
}

function tools(name) {
  const made = make("div", "mm-preset-tools");
  const chosen = name === props.value.chosen;
  const choose = press(chosen ? "Not for new chats" : "Use for new chats", "choose", chosen ? "" : name);
  made.append(press("Update", "update", name), press("Rename", "rename", name), choose, press("Delete", "delete", name));
  return made;
}

function show() {
  const state = props.value;
  if (!state?.own) return;
  tell(state);
  const key = JSON.stringify([state.own, state.built_in, state.chosen, opened]);
  if (rows.mmShown === key && !rows.querySelector("input")) return; // a press must meet the button that it began on
  rows.mmShown = key;
  const nodes = state.own.map((item) => row(item, false));
  if (!nodes.length) nodes.push(make("p", "mm-presets-none", "What you save is listed here."));
  if (state.built_in.length) nodes.push(make("div", "mm-presets-group", "Built in"));
  nodes.push(...state.built_in.map((item) => row(item, true)));
  const at = rows.contains(document.activeElement) ? document.activeElement.dataset : null;
  rows.replaceChildren(...nodes);
  if (at) {
    const same = [...rows.querySelectorAll(`[data-preset="${at.preset}"]`)].find((b) => b.dataset.name === at.name);
    (same || rows.querySelector("button"))?.focus();
  }
}

function tell(state) {
  const parts = [];
  if (state.problem) parts.push(make("div", "mm-warn", state.problem));
  if (state.said) parts.push(make("div", "", state.said));
  if (state.deleted) {
    const undo = press("Undo", "restore", state.deleted[0]);
    parts.push(make("span", "", `Deleted: ${state.deleted[0]}`), undo);
  }
  said.replaceChildren(...parts);
}

function rename(button) {
  const name = button.dataset.name;
  const input = make("input");
  input.value = name;
  input.maxLength = 80;
  input.setAttribute("aria-label", "New name");
  const leave = (keep) => {
    opened = "";
    if (keep && input.value.trim() && input.value.trim() !== name) act("rename", { name, to: input.value });
    else show();
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") leave(true);
    else if (event.key === "Escape") leave(false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  button.closest(".mm-preset-tools").replaceChildren(input);
  input.focus();
  input.select();
}

const ACTIONS = {
  apply: ({ name, builtIn }) => act("apply", { name, built_in: Boolean(builtIn) }),
  more: ({ name }) => {
    opened = opened === name ? "" : name;
    show();
  },
  rename: (_, button) => rename(button),
  "choose-file": () => file.click(),
  restore: () => act("restore", { text: props.value.deleted[1] }),
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-preset]");
  if (!button) return;
  const { preset, name } = button.dataset;
  if (ACTIONS[preset]) return ACTIONS[preset](button.dataset, button);
  opened = "";
  act(preset, { name });
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (field.value.trim()) act("save", { name: field.value.trim() });
});
file.addEventListener("change", () => read(file, (text) => act("import", { text }), (problem) => tell({ problem })));
document.addEventListener("mm-menu", ({ detail }) => {
  if (!detail.shown || !detail.rows.contains(element)) return;
  opened = field.value = "";
  act("open");
});
watch("value", () => {
  show();
  if (props.value?.said?.startsWith("Saved")) field.value = "";
  if (props.value?.download) save(props.value.download);
});
