
// --- the vote: one line below the columns. Names only ever become text; a ranking is a draft here until it is sent.
(() => {
const bar = columns.parentElement.insertBefore(document.createElement("div"), columns.nextSibling);
bar.className = "mm-votes";
bar.setAttribute("role", "group");
bar.setAttribute("aria-label", "Vote on the newest answers");
const stopping = "multimodel-vote-stop";
let vote = { row: 0, columns: [], verdict: "none", revealed: "" };
let ranking = []; // groups of column keys, the best first; those of a group tie
let level = false; // the next one gets the place of the last one
let opening = false; // whether the conversation shown has only its newest turns so far
let ranked = ""; // what the draft was made from

function voteButton(name, text, label, pressed, key) {
  const made = document.createElement("button");
  made.type = "button";
  made.dataset.vote = name;
  made.append(text);
  made.setAttribute("aria-label", label);
  made.title = label;
  if (pressed !== undefined) made.setAttribute("aria-pressed", String(pressed));
  if (key) made.setAttribute("aria-keyshortcuts", key);
  if (key) made.title += ` (key ${key})`;
  return made;
}

function dotted(index, text) {
  const holder = document.createDocumentFragment();
  const dot = document.createElement("i");
  dot.dataset.index = index;
  holder.append(dot, named(text));
  return holder;
}

// A name that is too long is cut before its end, which is what tells it from others: a place, a backend, a format.
function named(text) {
  const end = text.match(/ \([^()]*\)$/)?.[0] ?? text.slice(-8);
  const name = line("mm-vote-name", "");
  name.append(line("mm-vote-stem", text.slice(0, text.length - end.length)), line("", end));
  return name;
}

function columnIndex(key) {
  return window.mmState.columns.findIndex((column) => column.key === key);
}

const STANDS = { failed: ", which failed", silent: ", without an answer so far", running: ", still answering", ready: "" };

// While names are hidden, `blind` is what a button says; after the vote the letter stays beside the name.
function buttonName(key, name, blind) {
  if (window.mmState.blind === "hidden") return blind;
  return vote.revealed ? `${String.fromCharCode(65 + columnIndex(key))}: ${name}` : name;
}

function pairButtons() {
  if (!vote.columns.length) return [];
  const better = vote.columns.map(([key, name, stand, place], i) => {
    const text = buttonName(key, name, `${name.slice(-1)} is better`);
    const made = voteButton(key, dotted(columnIndex(key), text), `${name} is better${STANDS[stand]}`,
      ["best", "ranked"].includes(vote.verdict) && place === 1, i + 1);
    made.classList.toggle("mm-vote-off", ["failed", "silent"].includes(stand));
    return made;
  });
  return [
    ...better,
    voteButton("tie", "Tie", "They are equally good", vote.verdict === "tie", 3),
    voteButton("bad", "Both bad", "Both are bad", vote.verdict === "bad", 4),
  ];
}

function rankButtons() {
  const letters = vote.columns.map(([key, name, stand], i) => {
    const place = ranking.findIndex((group) => group.includes(key)) + 1;
    const made = voteButton(key, dotted(columnIndex(key), buttonName(key, name, name.slice(-1))),
      `${name}${place ? `, place ${place}: take out` : ": next in order"}${STANDS[stand]}`, place > 0, i + 1);
    made.prepend(line("mm-vote-place", place || ""));
    made.classList.toggle("mm-vote-off", ["failed", "silent"].includes(stand));
    return made;
  });
  const next = voteButton("level", "=", "The next one gets the same place as the last", level, "=");
  const send = voteButton("send", "Vote", "Vote with this order, the rest behind it", undefined, "v");
  next.disabled = !ranking.length;
  send.disabled = !ranking.length || drafted() === castOrder();
  send.className = "mm-vote-send";
  return [
    line("mm-vote-ask", "Best first"), ...letters, next, send,
    voteButton("tie", "All equal", "All are equally good", vote.verdict === "tie"),
    voteButton("bad", "All bad", "All are bad", vote.verdict === "bad"),
  ];
}

function castOrder() {
  const groups = [];
  for (const [key, , , place] of vote.columns) if (place) (groups[place - 1] ||= []).push(key);
  return ["best", "ranked"].includes(vote.verdict) ? JSON.stringify(groups.filter(Boolean).map((g) => g.sort())) : "[]";
}

function drafted() {
  return JSON.stringify(ranking.map((group) => [...group].sort()));
}

function stopChoice() {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = localStorage.getItem(stopping) === "1";
  box.addEventListener("change", () => localStorage.setItem(stopping, box.checked ? "1" : "0"));
  label.className = "mm-vote-stop";
  label.title = "A vote ends the answers that are still running";
  label.append(box, line("", "A vote stops others"));
  return label;
}

function words(blind) {
  if (blind === "hidden") return "Names are hidden until the vote";
  if (vote.revealed) return `Revealed: ${vote.revealed}`;
  return blind ? "Names are hidden with the next prompt" : "";
}

function aside() {
  const blind = window.mmState.blind;
  const running = vote.columns.some(([, , stand]) => ["running", "silent"].includes(stand));
  const told = words(blind), short = vote.revealed && vote.columns.length > 2; // the buttons say the letters too
  const said = line("mm-vote-said", short ? "Revealed" : told);
  if (short) said.append(line("mv-said", told.slice("Revealed".length)));
  said.title = told;
  said.classList.toggle("mm-vote-revealed", Boolean(vote.revealed));
  said.setAttribute("role", "status");
  const parts = [said];
  if (running && vote.verdict === "none") parts.unshift(stopChoice());
  if (vote.verdict !== "none") parts.push(voteButton("none", "Take back", "Take the vote back", undefined, "0"));
  if (blind === "hidden") parts.push(voteButton("reveal", "Show names", "Show the names without a vote"));
  parts.push(voteButton("leaderboard", "Leaderboard", "What your votes say of the models"));
  return parts;
}

function paintVote() {
  const focused = bar.contains(document.activeElement) ? document.activeElement.dataset.vote : null;
  const choices = document.createElement("div");
  choices.className = "mm-vote-choices";
  choices.append(...(vote.columns.length > 2 ? rankButtons() : pairButtons()));
  bar.replaceChildren(choices, ...aside());
  if (focused) bar.querySelector(`[data-vote="${focused}"]`)?.focus();
}

// The columns give the line its room; who read the end of a conversation still does.
function showBar(shown) {
  if (bar.hidden === !shown) return;
  const stuck = [...columns.querySelectorAll(".mm-body")].filter(nearEnd);
  bar.hidden = !shown;
  toEnd(stuck);
}

function showVote(state) {
  if (!state?.vote) return;
  vote = state.vote;
  const hidden = state.blind === "hidden";
  const root = document.documentElement.dataset;
  if (hidden && root.mmBlind !== "hidden") document.querySelector("#mm-settings-close")?.click(); // a column's settings would say its name
  element.classList.toggle("mm-revealing", root.mmBlind === "hidden" && state.blind === "shown");
  root.mmBlind = state.blind;
  const button = document.getElementById("mm-blind");
  button?.setAttribute("aria-pressed", String(Boolean(state.blind)));
  if (button) button.title = "Blind comparison: columns are shuffled and their names hidden until you vote";
  for (const node of columns.querySelectorAll(".mm-model")) {
    node.disabled = hidden;
    if (hidden) node.title = "Hidden until the vote";
  }
  showBar(state.columns.length > 1 || hidden); // the room is kept before anything is asked: nothing jumps later
  if (opening && !state.partial) toEnd(columns.querySelectorAll(".mm-body"));
  opening = state.partial; // its earlier turns are yet to come: then too it is shown from its end
  bar.style.visibility = vote.columns.length || hidden ? "" : "hidden";
  const now = JSON.stringify([vote, state.blind, state.columns.map((column) => column.key)]);
  if (bar.mmShown === now) return;
  bar.mmShown = now;
  const from = JSON.stringify([vote.row, castOrder()]);
  if (from !== ranked) {
    ranked = from;
    ranking = JSON.parse(castOrder());
    level = false;
  }
  paintVote();
}

function cast(verdict, places) {
  const stop = bar.querySelector(".mm-vote-stop input")?.checked || false;
  trigger("act", { op: "decide", key: window.mmState.columns[0].key, verdict, places: places || {}, stop });
}

function toggleRank(key) {
  if (ranking.some((group) => group.includes(key)))
    ranking = ranking.map((group) => group.filter((other) => other !== key)).filter((group) => group.length);
  else if (level && ranking.length) ranking.at(-1).push(key);
  else ranking.push([key]);
  level = false;
  paintVote();
}

function chooseVote(name) {
  if (name === "leaderboard") document.dispatchEvent(new CustomEvent("mm-leaderboard"));
  else if (name === "reveal") trigger("act", { op: "reveal", key: window.mmState.columns[0].key });
  else if (["tie", "bad", "none"].includes(name)) cast(name);
  else if (name === "level") (level = !level), paintVote();
  else if (name === "send") cast("ranked", Object.fromEntries(ranking.flatMap((group, i) => group.map((key) => [key, i + 1]))));
  else if (vote.columns.length === 2) cast("best", { [name]: 1 });
  else if (["failed", "silent"].includes(vote.columns.find(([key]) => key === name)?.[2])) cast("ranked", { [name]: 1 });
  else toggleRank(name);
}

bar.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-vote]");
  if (!button || button.disabled) return;
  event.stopPropagation();
  chooseVote(button.dataset.vote);
});

document.addEventListener("mm-state", () => showVote(window.mmState));
showVote(window.mmState);
})();
