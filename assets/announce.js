// Says once of each answer that it has ended, by the words the server has for it (`told` of a column).
const place = element.querySelector("[role=status]");
let chat = "";
let before = new Map(); // by the keys of the columns: whether they were answering, and how many turns they had

document.addEventListener("mm-state", () => {
  const { columns } = window.mmState;
  const same = window.mmState.chat === chat;
  const ended = columns.filter(({ key, running, told, turns }) => {
    const was = before.get(key);
    return same && was && !running && told && (was.running || turns.length > was.count); // one may end unseen
  });
  chat = window.mmState.chat;
  before = new Map(columns.map(({ key, running, turns }) => [key, { running, count: turns.length }]));
  if (!ended.length) return;
  // a node of its own: the same words twice are two announcements
  place.append(window.mmParts.make("p", "", `${ended.map((column) => column.told).join(". ")}.`));
  while (place.childElementCount > 4) place.firstElementChild.remove();
});
