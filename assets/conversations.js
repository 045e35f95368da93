// The list of conversations. The server sends rows of plain values (watch 'value'); what a person does is reported as
// the event 'act' {op, chat, ...}. Titles and excerpts only ever become text.
const rows = element.querySelector(".mm-list-rows");
const said = element.querySelector(".mm-list-said");
const search = element.querySelector('input[type="search"]');
const file = element.querySelector('input[type="file"]');
const DAY = 24 * 3600;
const { make: node, save } = window.mmParts;
let menu = null; // the open menu
let sought = null; // the words of the search that is on its way
let patience = null;

function act(op, more) {
  trigger("act", { op, words: search.value.trim(), ...more });
}

function button(className, text, title) {
  const made = node("button", className, text);
  made.type = "button";
  if (title) made.title = title;
  return made;
}

function group(updated, pinned, now) {
  if (pinned) return "Pinned";
  const midnight = new Date(now * 1000).setHours(0, 0, 0, 0) / 1000;
  if (updated >= midnight) return "Today";
  if (updated >= midnight - DAY) return "Yesterday";
  if (updated >= midnight - 7 * DAY) return "Last 7 days";
  return new Date(updated * 1000).toLocaleDateString("en", { month: "long", year: "numeric" });
}

function excerpt(text) {
  const made = node("span", "mm-list-excerpt");
  text.split("\x01").forEach((part, i) => {
    const [found, rest] = i ? part.split("\x02") : ["", part];
    if (found) made.append(node("mark", "", found));
    if (rest) made.append(rest);
  });
  return made;
}

function row([chat, title, updated, pinned, found, tag], current) {
  const made = node("div", "mm-list-row");
  made.setAttribute("role", "listitem");
  Object.assign(made.dataset, { chat, title });
  made.mmPinned = pinned;
  made.dataset.tag = tag;
  const open = button("mm-list-open", undefined, title);
  open.dataset.list = "open";
  open.append(node("span", "mm-list-title", title));
  if (tag) open.append(node("span", "mm-list-tag", tag));
  if (found) open.append(excerpt(found));
  setCurrent(made, current);
  const more = button("mm-icon mm-i-more", `More to do with ${title}`, "Rename, pin, take out or delete");
  more.dataset.list = "menu";
  more.setAttribute("aria-haspopup", "menu");
  made.append(open, more);
  return made;
}

function show(state) {
  if (!state || !state.items) return;
  const key = JSON.stringify([state.items, state.words]);
  if (rows.mmShown === key && !menu && !rows.querySelector(".mm-list-rename")) return mark(state);
  rows.mmShown = key;
  const now = Date.now() / 1000;
  const nodes = [];
  let last = "";
  for (const item of state.items) {
    const name = state.words ? "" : group(item[2], item[3], now);
    if (name !== last) nodes.push(node("div", "mm-list-group", (last = name)));
    nodes.push(row(item, state.current));
  }
  if (!nodes.length)
    nodes.push(node("p", "mm-list-none", state.words ? "Nothing found. Try fewer or shorter words." : "What you ask is kept here."));
  closeMenu();
  rows.replaceChildren(...nodes);
  tell(state);
}

function setCurrent(line, current) {
  if (line.dataset.chat === current) line.setAttribute("aria-current", "true");
  else line.removeAttribute("aria-current");
}

function mark(state) {
  for (const line of rows.querySelectorAll(".mm-list-row")) setCurrent(line, state.current);
  tell(state);
}

function tell(state) {
  const parts = [];
  if (state.problem) parts.push(node("div", "mm-warn", state.problem));
  if (state.note) parts.push(node("div", "mm-warn", state.note));
  if (state.invitation) parts.push(invitation(`${location.origin}${location.pathname}?join=${state.invitation}`));
  if (state.deleted) {
    const line = node("div", "mm-list-undo");
    const undo = button("", "Undo");
    undo.dataset.list = "restore";
    undo.dataset.chat = state.deleted[0];
    line.append(node("span", "", `Deleted: ${state.deleted[1]}`), undo);
    parts.push(line);
  }
  said.replaceChildren(...parts);
}

function invitation(link) {
  const made = node("div", "mm-list-invite");
  const field = node("input");
  field.readOnly = true;
  field.value = link;
  field.setAttribute("aria-label", "Link for another device");
  field.addEventListener("focus", () => field.select());
  const copy = button("", "Copy");
  copy.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(link);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Press Ctrl+C";
    }
  });
  made.append(node("p", "", "Open this link there. It works once, for ten minutes, and shows all your conversations."), field, copy);
  return made;
}

// --- the menu of a row

function openMenu(anchor) {
  const line = anchor.closest(".mm-list-row");
  const again = menu && menu.parentElement === line;
  closeMenu();
  if (again) return;
  menu = node("div", "mm-list-menu");
  menu.setAttribute("role", "menu");
  for (const [op, words] of [
    ["rename", "Rename"],
    ["tag", line.dataset.tag ? "Change the topic" : "Give a topic"],
    ["pin", line.mmPinned ? "Unpin" : "Pin"],
    ["export json", "Export as JSON"],
    ["export md", "Export as Markdown"],
    ["export html", "Export as a page"],
    ["delete", "Delete"],
  ]) {
    const item = button("", words);
    [item.dataset.list, item.dataset.kind] = op.split(" ");
    item.setAttribute("role", "menuitem");
    menu.append(item);
  }
  line.append(menu);
  const below = rows.getBoundingClientRect().bottom - line.getBoundingClientRect().bottom;
  menu.classList.toggle("mm-up", below < menu.offsetHeight + 8);
  menu.firstElementChild.focus();
}

function closeMenu() {
  if (menu) menu.remove();
  menu = null;
}

// A field in the place of a title: Enter keeps what was typed, Escape does not.
function type(line, { value, label, most, keep }) {
  const field = node("input", "mm-list-rename");
  field.type = "text";
  field.value = value;
  field.maxLength = most;
  field.setAttribute("aria-label", label);
  let left = false;
  const leave = (kept) => {
    if (left) return;
    left = true;
    if (kept && field.value.trim() !== value) keep(field.value.trim());
    else show(props.value);
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") leave(true);
    if (event.key === "Escape") leave(false);
    event.stopPropagation();
  });
  field.addEventListener("blur", () => leave(true));
  line.querySelector(".mm-list-open").replaceWith(field);
  field.focus();
  field.select();
}

function rename(line) {
  const { chat, title } = line.dataset;
  const keep = (typed) => (typed ? act("rename", { chat, title: typed }) : show(props.value));
  type(line, { value: title, label: "New title", most: 200, keep });
}

function tag(line) {
  const { chat, tag: value } = line.dataset;
  type(line, { value, label: "Topic of its votes", most: 40, keep: (typed) => act("tag", { chat, tag: typed }) });
}

// --- what a person does

const ACTIONS = {
  fold: () => window.mmToggleList(false),
  open: (line) => {
    act("open", { chat: line.dataset.chat });
    if (matchMedia("(max-width: 760px)").matches) window.mmToggleList(false);
  },
  menu: (line, source) => openMenu(source),
  rename: (line) => (closeMenu(), rename(line)),
  tag: (line) => (closeMenu(), tag(line)),
  pin: (line) => act("pin", { chat: line.dataset.chat, pinned: !line.mmPinned }),
  delete: (line) => act("delete", { chat: line.dataset.chat, title: line.dataset.title }),
  export: (line, source) => (closeMenu(), act("export", { chat: line.dataset.chat, kind: source.dataset.kind })),
  choose: () => file.click(),
  invite: () => act("invite"),
  leaderboard: () => document.dispatchEvent(new CustomEvent("mm-leaderboard")),
  restore: (line, source) => act("restore", { chat: source.dataset.chat }),
};

element.addEventListener("click", (event) => {
  const source = event.target.closest("[data-list]");
  if (source) ACTIONS[source.dataset.list](source.closest(".mm-list-row"), source);
});
element.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && menu) {
    const line = menu.parentElement;
    closeMenu();
    line.querySelector('[data-list="menu"]').focus();
  } else if (["ArrowDown", "ArrowUp"].includes(event.key)) {
    const stops = [...(menu || element).querySelectorAll(menu ? "button" : "input, .mm-list-open")];
    const at = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (at >= 0 && at < stops.length) stops[at].focus();
  } else return;
  event.preventDefault();
});
file.addEventListener("change", async () => {
  const [chosen] = file.files;
  file.value = "";
  if (!chosen) return;
  if (chosen.size > 20_000_000) tell({ problem: "The file is larger than 20 MB." });
  else act("import", { text: await chosen.text() });
});

// A search goes out at once, and the next one when its answer is there: answers come in their order, and none is missed.
function find() {
  if (sought !== null) return;
  sought = search.value.trim();
  act("search");
  clearTimeout(patience);
  patience = setTimeout(() => (sought = null), 3000); // an answer that never comes
}

function found(words) {
  if (sought !== words) return;
  sought = null;
  if (search.value.trim() !== words) find();
}
search.addEventListener("input", find);
document.addEventListener("pointerdown", (event) => {
  if (menu && !menu.parentElement.contains(event.target)) closeMenu();
  const drawer = matchMedia("(max-width: 760px)").matches && document.documentElement.dataset.mmList === "1";
  if (drawer && !event.target.closest("#mm-list, #mm-list-button")) window.mmToggleList(false);
});

watch("value", () => {
  show(props.value);
  found(props.value?.words);
  if (props.value?.download) save(props.value.download);
});
show(props.value);
