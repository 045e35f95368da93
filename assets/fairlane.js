// The fair lane. The server says how a measurement stands, as escaped HTML; this asks it whenever the board has changed,
// and again and again while models are being measured.
const EVERY = 600; // milliseconds
const form = element.querySelector(".mm-fair-form");
const result = element.querySelector(".mm-fair-result");
const problem = element.querySelector(".mm-fair-problem");
let shown = ""; // of the board: what the panel was asked for
let closed = ""; // the measurement that a person has closed
let now = {};
let soon = 0;
let asking = 0; // counts what was asked, so that an old answer does not replace a newer one

function name() {
  return `${window.mmState?.chat}:${now.number}`;
}

function show() {
  if (result.mmHTML !== now.html) result.innerHTML = result.mmHTML = now.html || "";
  result.hidden = !now.html || (closed === name() && !now.running);
  document.getElementById("mm-fair").classList.toggle("mm-fair-nothing", result.hidden && form.hidden);
  element.querySelector(".mm-fair-each").textContent = now.each || "";
  for (const id of ["mm-fair-button", "mm-fair-row"]) {
    const button = document.getElementById(id);
    if (button) button.disabled = !now.ready;
  }
}

// Its answers are paid too, and the board does not change by them.
function pay([all, each]) {
  const state = window.mmState;
  const set = (node, of, figure) => node && ([node.textContent, node.title] = of.spent = figure);
  set(document.querySelector("#mm-spent span"), state, all);
  for (const column of state.columns)
    if (each[column.key]) set(document.querySelector(`[data-key="${column.key}"] .mm-spent`), column, each[column.key]);
}

function tell(text) {
  problem.hidden = !text;
  problem.textContent = text || "";
}

async function ask(wanted = {}) {
  clearTimeout(soon);
  if (!window.mmState) return;
  const mine = ++asking;
  let said;
  try {
    said = await server.fair({ address: window.mmState.address, ...wanted });
  } catch {
    said = { running: now.running }; // it is asked again
  }
  if (mine !== asking) return;
  if (said.html !== undefined) {
    now = said;
    tell(said.problem);
    if (said.running) form.hidden = true;
    show();
    if (said.spent) pay(said.spent);
  }
  if (said.running) soon = setTimeout(ask, document.hidden ? 5 * EVERY : EVERY);
}

function changed() {
  const state = window.mmState;
  const key = [state.address, state.revision, state.running > 0, ...state.columns.map((c) => c.turns.length)].join();
  if (key === shown) return;
  shown = key;
  ask();
}

window.mmFair = () => {
  form.hidden = !form.hidden;
  closed = "";
  tell("");
  show();
  if (!form.hidden) form.repeats.focus();
};

function cancel() {
  form.hidden = true;
  show();
  document.querySelector("#mm-prompt textarea").focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask({ op: "start", repeats: form.repeats.valueAsNumber, cached: form.cached.checked, cold: form.cold.checked });
});
element.addEventListener("keydown", (event) => {
  event.stopPropagation(); // a digit is no vote here
  if (event.key === "Escape") cancel();
});
element.addEventListener("click", (event) => {
  const op = event.target.closest("[data-fair]")?.dataset.fair;
  if (op === "stop") ask({ op });
  if (op === "cancel") cancel();
  if (op === "close") {
    closed = name();
    show();
  }
});
document.addEventListener("mm-state", changed);
if (window.mmState) changed();
