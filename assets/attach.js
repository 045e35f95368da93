// Files for the next prompt: chosen, dropped anywhere on the Chat tab, or pasted into the prompt box. The server reads
// them and sends back chips. Also opens what was attached in a dialog.
const input = element.querySelector("input");
const chips = element.querySelector(".mm-chips");
const [said, problems] = element.querySelectorAll(".mm-attach-said");
const tab = () => document.getElementById("mm-chat");
const limit = Number(input.dataset.limit);
let waiting = Promise.resolve();
let answered = () => {};
let reading = 0;
let sends = false; // a person has pressed Send while a file is still being read

function show(state) {
  if (!state) return;
  if (chips.mmHTML !== state.html) chips.innerHTML = chips.mmHTML = state.html || "";
  said.innerHTML = state.said || "";
  problems.insertAdjacentHTML("beforeend", state.problem || "");
  answered();
}

function tell(text) {
  const box = document.createElement("div");
  box.className = "mm-warn";
  box.setAttribute("role", "status");
  box.textContent = text;
  problems.append(box);
}

async function add(file) {
  if (file.size > limit)
    return tell(`${file.name} has ${Math.round(file.size / 1e6)} MB. Attach a part of it, or a file of at most ${limit / 1e6} MB.`);
  const chip = document.createElement("div");
  chip.className = "mm-chip-file mm-reading";
  chip.setAttribute("role", "listitem");
  chip.textContent = `Reading ${file.name}`;
  chips.append(chip);
  chips.mmHTML = null;
  try {
    const taken = await upload(file);
    const answer = new Promise((resolve) => (answered = resolve));
    trigger("act", { op: "add", path: taken.path, name: file.name || "pasted.png" });
    await answer;
  } catch {
    tell(`${file.name} could not be uploaded. Check that the app is still running.`);
  }
  chip.remove();
}

function done() {
  reading -= 1;
  if (reading || !sends) return;
  sends = false;
  if (!problems.textContent) document.getElementById("mm-send").click();
}

function hold(event) {
  if (!reading) return;
  sends = true;
  event.preventDefault();
  event.stopImmediatePropagation();
}

function addAll(files) {
  problems.replaceChildren();
  reading += files.length;
  for (const file of files) waiting = waiting.then(() => add(file)).then(done);
}

const named = (file, at) =>
  file.name && file.name !== "image.png" ? file : new File([file], `pasted ${new Date().toLocaleTimeString()}${at ? ` ${at + 1}` : ""}.png`.replaceAll(":", "."), { type: file.type });

input.addEventListener("change", () => {
  addAll([...input.files]);
  input.value = "";
});
window.mmAttach = () => input.click();

document.addEventListener("click", (event) => event.target.closest?.("#mm-send") && hold(event), true);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.closest?.("#mm-prompt")) hold(event);
}, true);
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files || [])];
  if (!files.length || !event.target.closest?.("#mm-composer")) return;
  event.preventDefault();
  addAll(files.map(named));
});

const carries = (event) => [...(event.dataTransfer?.types || [])].includes("Files") && tab()?.offsetParent;
let over = 0;
document.addEventListener("dragenter", (event) => {
  if (!carries(event)) return;
  over += 1;
  tab().classList.add("mm-dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!carries(event)) return;
  over = Math.max(0, over - 1);
  if (!over) tab().classList.remove("mm-dropping");
});
document.addEventListener("dragover", (event) => {
  if (carries(event)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  over = 0;
  tab().classList.remove("mm-dropping");
  addAll([...event.dataTransfer.files]);
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-remove]");
  if (!button) return;
  problems.replaceChildren();
  trigger("act", { op: "remove", file: button.dataset.remove });
});

// --- what was attached, in a dialog

async function open(link) {
  const dialog = document.createElement("dialog");
  dialog.className = "mm-opened";
  const head = document.createElement("header");
  const name = document.createElement("strong");
  const close = document.createElement("button");
  const text = document.createElement("pre");
  name.textContent = link.dataset.name;
  close.textContent = "Close";
  close.type = "button";
  close.addEventListener("click", () => dialog.close());
  text.tabIndex = 0;
  head.append(name, close);
  dialog.append(head, text);
  dialog.addEventListener("close", () => (dialog.remove(), link.focus()));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.querySelector(".gradio-container").append(dialog);
  dialog.showModal();
  const image = link.querySelector("img") || link.parentElement.querySelector(":scope > img");
  if (image) {
    const picture = document.createElement("img");
    picture.src = link.href;
    picture.alt = name.textContent || image.alt;
    name.textContent ||= image.alt;
    text.replaceWith(picture);
    return;
  }
  text.textContent = "Loading";
  const answer = await fetch(link.href).catch(() => null);
  text.textContent = answer?.ok ? await answer.text() : "It is not there any more.";
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a.mm-file, a.mm-file-name");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  open(link);
});

watch("value", () => show(props.value));
show(props.value);
