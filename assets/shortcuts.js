// The keys of the Chat tab: 'value' maps a key to what it does (see tabs/shortcuts.py). They act while no field has the
// focus and no dialog is open; with Ctrl, Alt or Meta they are the browser's.
const dialog = element.querySelector("dialog");
const allowed = dialog.querySelector("input");
const FIELDS = "input:not([type=checkbox],[type=radio],[type=button]),textarea,select,[contenteditable=true]";
const byId = (id) => document.getElementById(id);
let current = ""; // the key of the column that had the focus last

allowed.checked = localStorage.getItem("multimodel-keys") !== "0";
allowed.addEventListener("change", () => localStorage.setItem("multimodel-keys", allowed.checked ? "1" : "0"));

function column() {
  const all = [...document.querySelectorAll(".mm-column")];
  return all.find((c) => c.contains(document.activeElement)) || all.find((c) => c.dataset.key === current) || all[0];
}

function go(step) {
  const all = [...document.querySelectorAll(".mm-column")];
  const inside = column().contains(document.activeElement);
  const next = inside ? all[(all.indexOf(column()) + step + all.length) % all.length] : column();
  next.scrollIntoView({ inline: "start", block: "nearest" });
  next.querySelector(".mm-body").focus({ preventScroll: true });
}

function press(found) {
  const button = [...found].at(-1);
  if (button && !button.disabled) button.click();
}

const NAMED = {
  next: () => go(1),
  previous: () => go(-1),
  sheet: () => dialog.showModal(),
  search: () => {
    window.mmToggleList(true);
    document.querySelector('#mm-list input[type="search"]').focus();
  },
};

function obey(does) {
  const [verb, ...rest] = does.split(" ");
  const selector = rest.join(" ");
  if (verb === "press") press(document.querySelectorAll(selector));
  else if (verb === "here") press(column().querySelectorAll(selector));
  else if (verb === "focus") document.querySelector(selector).focus();
  else NAMED[verb]();
}

function escape(event) {
  const settings = event.target.closest?.("#mm-settings");
  if (document.documentElement.dataset.mmRunning !== "0" && !settings) byId("mm-stop").click();
  else if (event.target.matches(FIELDS)) event.target.blur();
  else if (settings) byId("mm-settings-close").click();
  else return false;
  return true;
}

// What a key does here, or nothing: the arrows belong to columns, and keys made elsewhere say so on their buttons.
function meant(event) {
  if (event.target.matches(FIELDS) || !allowed.checked) return null;
  if (event.key.startsWith("Arrow") && !event.target.closest(".mm-column")) return null;
  if (props.value[event.key]) return () => obey(props.value[event.key]);
  const said = `[aria-keyshortcuts="${CSS.escape(event.key)}"]`;
  const found = [column().querySelectorAll(said), document.querySelectorAll(said)].find((list) => list.length);
  return found ? () => press(found) : null;
}

document.addEventListener("focusin", (event) => {
  const inside = event.target.closest?.(".mm-column");
  if (inside) current = inside.dataset.key;
});
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
  if (!byId("mm-prompt")?.offsetParent || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (escape(event)) event.preventDefault();
    return;
  }
  const action = meant(event);
  if (!action) return;
  event.preventDefault();
  action();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
});
window.mmSheet = () => dialog.showModal();
