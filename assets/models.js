// The Models view. It asks functions of the server, which answer with finished, escaped HTML, and puts that in place.
const root = element.querySelector(".mp-shelf");
const find = (selector) => root.querySelector(selector);
const list = find("[data-list]");
const detail = find("[data-detail]");
const note = find("[data-note]");
const { lost, request } = window.mmParts;
const WAIT = 500; // milliseconds between two looks at what goes on in the background
let opened = 0; // counts what was opened: an answer to an earlier one is dropped
let current = ""; // the model that the list marks
let stopping = false; // what goes on in the background and can be stopped

// The model whose page is shown: whatever its buttons do, they do to no other.
const shown = () => detail.querySelector("[data-name]")?.dataset.name || "";

// An answer has what is `needed` of it, goes on in the background, or is an error.
async function ask(name, asked = {}, needed = "html") {
  const answer = await request(() => server[name]({ name: shown(), ...asked }));
  return answer.error || answer.running || needed in answer ? answer : { error: lost() };
}

// Work in the background: its first answer may be that it goes on.
async function finish(answer, place, words) {
  stopping = false;
  while (answer.running) {
    show(place, answer.html || `<p class="mx-soft mp-working">${words}</p>`);
    await new Promise((done) => setTimeout(done, WAIT));
    answer = await ask("task", { task: answer.task, stop: stopping });
  }
  if (place.isConnected) place.innerHTML = answer.error || answer.html || "";
  return answer;
}

// How far it is: its button stays the same one, so that it keeps the focus.
function show(place, html) {
  const stop = place.querySelector('[data-going] [data-do="stop"]');
  const next = document.createElement("template");
  next.innerHTML = html;
  const button = next.content.querySelector('[data-do="stop"]');
  if (!stop || !button) return place.replaceChildren(next.content);
  const old = [...stop.parentElement.children];
  [...button.parentElement.children].forEach((part, i) => part !== button && old[i].replaceWith(part));
}

async function saved() {
  const answer = await ask("saved");
  list.innerHTML = answer.error || answer.html;
  if (answer.error) return;
  root.classList.toggle("mp-empty", !answer.count);
  mark();
  if (current && !names().includes(current)) close();
}

const names = () => [...list.querySelectorAll("[data-open]")].map((node) => node.dataset.open);

// The newest model is opened where none was. It never takes the place of one that is gone: nobody chose it.
async function enter() {
  const first = !current;
  await saved();
  if (first && !current && names().length && detail.offsetParent) open(names()[0]);
}

function mark() {
  for (const row of list.querySelectorAll(".mx-row")) row.setAttribute("aria-current", String(row.dataset.open === current));
}

function close() {
  opened++;
  current = "";
  root.classList.remove("mx-open");
  detail.innerHTML = '<div class="mx-quiet">Choose a model.</div>';
}

async function open(name) {
  const mine = ++opened;
  current = name;
  mark();
  const answer = await ask("detail", { name });
  if (mine !== opened) return;
  detail.innerHTML = answer.error || answer.html;
  detail.scrollTop = 0;
}

const here = () => detail.querySelector("[data-act-out]");

function download(answer) {
  if (!answer.url) return;
  const link = document.createElement("a");
  link.href = answer.url;
  link.download = answer.file;
  link.click();
}

async function form(name) {
  const answer = await ask(name);
  here().innerHTML = answer.error || answer.html;
  here().querySelector("input")?.select();
}

const doings = {
  back: () => root.classList.remove("mx-open"),
  predict: () => document.dispatchEvent(new CustomEvent("mm-predict-open", { detail: { name: shown() } })),
  zip: async () => download(await finish(await ask("pack"), here(), "Packing the files")),
  onnx: async () => finish(await ask("onnx"), here(), "Exporting and comparing, about half a minute"),
  hub: () => form("pushing"),
  stop: (button) => {
    stopping = true;
    button.disabled = true;
    button.textContent = "Stopping";
  },
  rename: () => form("renaming"),
  dismiss: () => (here().innerHTML = ""),
  delete: async (button) => {
    if (!button.dataset.sure) {
      button.dataset.sure = "1";
      button.textContent = `Delete for good, free ${button.dataset.frees}`;
      setTimeout(() => button.isConnected && (delete button.dataset.sure, (button.textContent = "Delete")), 5000);
      return;
    }
    const answer = await ask("discard");
    if (answer.error) return (here().innerHTML = answer.error);
    close();
    note.innerHTML = answer.html;
    saved();
  },
};

const forms = {
  rename: async (values, place) => {
    const answer = await ask("rename", { to: values.get("to") }, "name");
    if (answer.error) return (place.innerHTML = answer.error);
    current = answer.name;
    await saved();
    open(current);
  },
  push: async (values, place) => {
    const asked = { repo: values.get("repo"), secret: values.get("secret") || "", private: values.has("private") };
    place.innerHTML = '<p class="mx-soft mp-working">Asking the Hub</p>';
    await finish(await ask("push", { ...asked, update: values.has("update") }), place, "Uploading");
  },
};

async function launch() {
  const count = Number(detail.querySelector("[data-processes]").value);
  const answer = await ask("launch", { processes: count, way: detail.querySelector("[data-how]").value });
  detail.querySelector("[data-launch-out]").innerHTML = answer.error || answer.html;
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.closest(".mm-code").querySelector("pre").textContent);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  const data = button.dataset;
  if (data.open) root.classList.add("mx-open"), open(data.open);
  else if (data.copy) copy(button);
  else if (data.do) doings[data.do]?.(button);
});

element.addEventListener("submit", (event) => {
  event.preventDefault();
  const node = event.target;
  forms[node.dataset.form]?.(new FormData(node), node.querySelector("[data-form-out]"));
});

element.addEventListener("change", (event) => {
  if (event.target.closest("[data-launch]")) launch();
});

element.addEventListener("toggle", async (event) => {
  const node = event.target;
  if (!node.open) return;
  if (node.matches("[data-launch]")) launch();
  else if (node.matches("[data-card-place]")) {
    const answer = await ask("about");
    node.querySelector("[data-card]").innerHTML = answer.error || answer.html;
  }
}, true);

document.addEventListener("mm-model-ready", () => root.offsetParent && enter());
new IntersectionObserver((seen) => {
  if (seen.some((entry) => entry.isIntersecting)) enter();
}).observe(root);
