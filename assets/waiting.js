// The prompts that wait. The board's view says which (window.mmState, event "mm-state"); what a person does is reported
// as the event 'act' {op, item, prompt}. Prompts only ever become text.
const box = element.querySelector(".mm-waiting");
const said = box.querySelector("[role=status]");
const list = box.querySelector("ol");
const send = () => document.getElementById("mm-send");
let editing = 0; // the id of the prompt that is being edited

function icon(op, name, title) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = `mm-icon ${name}`;
  made.dataset.queue = op;
  made.title = made.textContent = title;
  return made;
}

function clipped(files) {
  const made = document.createElement("small");
  made.textContent = files.length === 1 ? files[0] : `${files.length} files`;
  made.title = files.join(", ");
  return made;
}

function row([id, prompt, files], index) {
  const made = document.createElement("li");
  made.dataset.item = id;
  const text = document.createElement("span");
  text.textContent = text.title = prompt;
  made.append(text);
  if (files.length) made.append(clipped(files));
  made.append(icon("open", "mm-i-edit", "Edit this prompt"));
  const earlier = icon("earlier", "mm-i-up", "Send it earlier");
  earlier.disabled = index === 0;
  made.append(earlier, icon("remove", "mm-i-close", "Remove this prompt"));
  return made;
}

function words(count, paused) {
  const prompts = `${count} ${count === 1 ? "prompt waits" : "prompts wait"}`;
  return paused ? `${prompts}.` : `${prompts} for all columns.`;
}

function show() {
  const state = window.mmState;
  if (!state) return;
  if (send()) send().textContent = state.running ? "Queue" : "Send";
  const { waiting = [], paused = false } = state;
  box.hidden = !waiting.length;
  box.classList.toggle("mm-paused", paused);
  const text = waiting.length ? words(waiting.length, paused) : "";
  if (said.textContent !== text) said.textContent = text;
  if (editing && waiting.some(([id]) => id === editing)) return;
  editing = 0;
  const key = JSON.stringify(waiting);
  if (list.mmShown === key) return;
  list.mmShown = key;
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.queue : "";
  list.replaceChildren(...waiting.map(row));
  if (focused) (list.querySelector(`[data-queue="${focused}"]:not(:disabled)`) || list.querySelector("button"))?.focus();
}

function edit(line) {
  editing = Number(line.dataset.item);
  const field = document.createElement("textarea");
  field.value = line.querySelector("span").textContent;
  field.rows = Math.min(6, field.value.split("\n").length);
  field.setAttribute("aria-label", "Edit the prompt that waits");
  const leave = (keep) => {
    if (!editing) return;
    const item = editing;
    editing = 0;
    list.mmShown = null;
    if (keep) trigger("act", { op: "edit", item, prompt: field.value });
    show();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave(false);
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) leave(true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  field.addEventListener("blur", () => leave(true));
  line.querySelector("span").replaceWith(field);
  field.focus();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-queue]");
  if (!button) return;
  const line = button.closest("li");
  if (button.dataset.queue === "open") edit(line);
  else trigger("act", { op: button.dataset.queue, ...(line ? { item: Number(line.dataset.item) } : {}) });
});
document.addEventListener("mm-state", show);
show();
