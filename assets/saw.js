// The panel of an answer. A button with data-saw in the board opens it; the server makes its HTML, but for the tokens of
// an answer, which come as values and only ever become text.
const dialog = element.querySelector("dialog");
const body = dialog.querySelector(".mm-saw-body");
const title = dialog.querySelector("h2");
const tabs = [...dialog.querySelectorAll("[data-view]")];
const { make: node } = window.mmParts;
const STEPS = [0.9, 0.5, 0.2, 0.05]; // probabilities between the colours of tokens, as in the legend
let turn = 0;
let view = "prompt";
let asking = 0; // counts what was asked for: an answer to anything but the last is too late
let tokens = [];

function asked(more) {
  return { address: window.mmBoardAddress(), turn, view, ...more };
}

async function ask(name, question) {
  const mine = asking;
  let answer;
  try {
    answer = await server[name](question);
  } catch {
    answer = { error: '<p role="alert">The app does not answer. Is it still running?</p>' };
  }
  return mine === asking ? answer : null;
}

async function show(next, more = {}) {
  view = next;
  asking += 1;
  for (const tab of tabs) tab.setAttribute("aria-selected", String(tab.dataset.view === view));
  for (const tab of tabs) tab.tabIndex = tab.dataset.view === view ? 0 : -1;
  const answer = await ask("saw", asked(more));
  if (!answer) return;
  if (answer.title) title.textContent = answer.title;
  body.innerHTML = answer.error || answer.html;
  body.scrollTop = 0;
  if (answer.rows?.length) showTokens(answer);
  for (const place of body.querySelectorAll("[data-slow]")) slow(place, {});
}

// --- what takes longer: hashes, and the prompt of a local model

async function slow(place, more) {
  let answer = await ask("more", asked({ part: place.dataset.slow, ...more }));
  while (answer?.running) {
    await new Promise((done) => setTimeout(done, 300));
    answer = await ask("more", { task: answer.task });
  }
  if (answer) place.innerHTML = answer.error || answer.html;
}

// --- the tokens of an answer

function step(logprob) {
  const p = Math.exp(logprob);
  const found = STEPS.findIndex((least) => p >= least);
  return found < 0 ? STEPS.length : found;
}

function percent(logprob) {
  const p = 100 * Math.exp(logprob);
  if (p > 99.95) return "nearly 100%";
  return p >= 0.01 ? `${p >= 10 ? p.toFixed(1) : p.toPrecision(2)}%` : "below 0.01%";
}

function seen(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

function showTokens({ rows, least }) {
  const place = body.querySelector(".mm-saw-text");
  tokens = rows;
  place.replaceChildren(
    ...rows.map(([text, logprob], at) => {
      const made = node("span", "", text);
      made.dataset.at = at;
      made.dataset.p = step(logprob);
      made.tabIndex = at ? -1 : 0;
      return made;
    })
  );
  body.querySelector(".mm-saw-least").replaceChildren(
    ...least.map((at) => {
      const made = node("button", "", `${seen(rows[at][0])} ${percent(rows[at][1])}`);
      made.type = "button";
      made.dataset.least = at;
      return made;
    })
  );
}

function tell(at) {
  const [text, logprob, others] = tokens[at];
  const head = node("p", "", "");
  head.append(node("code", "", seen(text)), ` ${percent(logprob)}, log-probability ${logprob > -0.0005 ? 0 : logprob.toFixed(3).replace("-", "−")}`);
  const list = node("ul", "");
  for (const [other, likely] of others) {
    const row = node("li", other === text ? "mm-saw-this" : "");
    const bar = node("i", "");
    bar.style.width = `${(100 * Math.exp(likely)).toFixed(1)}%`;
    row.append(node("code", "", seen(other)), bar, node("span", "", percent(likely)));
    list.append(row);
  }
  const place = body.querySelector(".mm-saw-token");
  place.replaceChildren(head, others.length ? list : node("p", "mm-saw-soft", "No alternatives were asked for."));
}

function go(at) {
  const spans = body.querySelectorAll(".mm-saw-text span");
  const next = spans[Math.max(0, Math.min(at, spans.length - 1))];
  if (!next) return;
  for (const old of body.querySelectorAll('.mm-saw-text [tabindex="0"]')) old.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

for (const kind of ["pointerover", "focusin"])
  body.addEventListener(kind, ({ target }) => target.dataset?.at && tell(Number(target.dataset.at)));

const MOVES = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };
dialog.addEventListener("keydown", (event) => {
  event.stopPropagation(); // the keys of the page are not for what lies beneath
  const at = event.target.dataset?.at;
  const tab = tabs.indexOf(event.target);
  if (at !== undefined && MOVES[event.key]) go(Number(at) + MOVES[event.key]);
  else if (tab >= 0 && ["ArrowRight", "ArrowLeft"].includes(event.key)) {
    const next = tabs[(tab + (event.key === "ArrowRight" ? 1 : tabs.length - 1)) % tabs.length];
    next.focus();
    show(next.dataset.view);
  } else return;
  event.preventDefault();
});

// --- opening, closing, and what is pressed inside

function open(button) {
  turn = Number(button.dataset.turn);
  title.textContent = "";
  body.replaceChildren();
  button.closest("details")?.removeAttribute("open");
  dialog.showModal();
  show(button.dataset.saw);
}

dialog.addEventListener("close", () => {
  asking += 1;
  const opener = document.querySelector(`#mm-board [data-saw][data-turn="${turn}"]`);
  opener?.closest("details").querySelector("summary").focus();
});

async function copy(button) {
  const words = button.textContent;
  try {
    await navigator.clipboard.writeText(button.nextElementSibling.content.textContent);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here";
  }
  setTimeout(() => (button.textContent = words), 1500);
}

function settings() {
  dialog.close();
  document
    .querySelector(`#mm-board [data-saw][data-turn="${turn}"]`)
    ?.closest(".mm-column")
    .querySelector('[data-act="settings"]')
    .click();
}

dialog.addEventListener("click", (event) => {
  if (event.target === dialog) return dialog.close(); // beside it
  const button = event.target.closest("button");
  if (!button) return;
  if ("sawClose" in button.dataset) dialog.close();
  else if (button.dataset.view) show(button.dataset.view);
  else if ("sawCopy" in button.dataset) copy(button);
  else if ("sawSettings" in button.dataset) settings();
  else if (button.dataset.least) go(Number(button.dataset.least));
  else if ("sawLoad" in button.dataset) {
    button.disabled = true;
    button.textContent = "Loading the model";
    slow(button.closest("[data-slow]"), { load: true });
  }
});
dialog.addEventListener("change", ({ target }) => {
  if ("sawOther" in target.dataset) show("compare", { other: Number(target.value) });
});
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("#mm-board [data-saw]");
  if (button) open(button);
});
