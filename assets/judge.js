// The judge in Chat. Every finished answer on the board gets a badge that the server makes; 'value' is the judge's name.
const { lost, request } = window.mmParts;
const WAIT = 250; // milliseconds after a change of the board
const AT_ONCE = 32; // answers of one request
const badges = new Map(); // text: its badge, for the judge of now
let model = "";
let soon = 0;
let busy = false;
let failed = ""; // why there are no new verdicts
let resting = false; // after a failure, before the next attempt

function answers() {
  return [...document.querySelectorAll("#mm-board .mm-turn .mm-figures")].filter((node) => node.querySelector(".mm-raw"));
}

function text(node) {
  return node.querySelector(".mm-raw").content.textContent;
}

function show(node, html) {
  let place = node.querySelector(":scope > .mm-judged");
  if (!html) return place?.remove();
  if (!place) {
    place = document.createElement("span");
    place.className = "mm-judged";
    node.prepend(place);
  }
  if (place.mmHTML !== html) place.innerHTML = place.mmHTML = html;
}

const WAITING = '<span class="mm-verdict mm-verdict-waiting" role="status">judging</span>';

function place() {
  for (const node of answers()) show(node, model && (badges.get(text(node)) || failed || WAITING));
}

async function judge() {
  soon = 0;
  place();
  const wanted = [...new Set(answers().map(text))].filter((one) => !badges.has(one)).slice(0, AT_ONCE);
  if (!model || busy || resting || !wanted.length) return;
  const mine = model;
  busy = true;
  const answer = await request(() => server.judged({ model: mine, texts: wanted }));
  busy = false;
  if (mine === model) {
    if (answer.badges) wanted.forEach((one, i) => badges.set(one, answer.badges[i]));
    if (answer.badges) failed = "";
    else fail(answer);
  }
  later(0);
}

// New answers get the reason for their badge; the verdicts there are stay.
function fail(answer) {
  const holder = document.createElement("div");
  holder.innerHTML = answer.error || lost();
  const why = document.createElement("span");
  why.className = "mm-verdict mm-verdict-failed";
  why.textContent = holder.querySelector("strong").textContent;
  why.title = holder.querySelector("p")?.textContent || "";
  if (answer.gone && !failed) trigger("gone", {});
  failed = why.outerHTML;
  resting = true;
  setTimeout(() => ((resting = false), later(0)), 15000); // perhaps it is better then
}

// The details stand above all: inside a column they would be cut off at its edges.
const details = document.body.appendChild(document.createElement("div"));
details.className = "mm-verdict-shown";
details.setAttribute("role", "tooltip");

function point(event) {
  const badge = event.target.closest?.("#mm-board .mm-verdict");
  const more = badge?.querySelector(".mm-verdict-more");
  details.hidden = !more;
  if (!more) return;
  if (details.mmHTML !== more.innerHTML) details.innerHTML = details.mmHTML = more.innerHTML;
  const at = badge.getBoundingClientRect();
  const height = details.offsetHeight + 6;
  details.style.top = `${at.top > height ? at.top - height : at.bottom + 6}px`;
  details.style.left = `${Math.max(8, Math.min(at.left, innerWidth - details.offsetWidth - 8))}px`;
}
details.hidden = true;
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, point);
document.addEventListener("scroll", () => (details.hidden = true), { capture: true, passive: true });
document.addEventListener("keydown", (event) => event.key === "Escape" && (details.hidden = true));

function later(wait = WAIT) {
  if (!soon) soon = setTimeout(judge, wait);
}

function choose() {
  const name = props.value || "";
  if (name === model) return;
  model = name;
  failed = "";
  resting = false;
  badges.clear();
  later(0);
}

function begin() {
  const board = document.querySelector("#mm-board .mm-columns");
  if (!board) return setTimeout(begin, 200);
  new MutationObserver(() => model && later()).observe(board, { childList: true, subtree: true });
}

watch("value", choose);
choose();
begin();
