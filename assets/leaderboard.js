// The leaderboard. The server sends finished HTML (watch 'value'); what a person chooses is the event 'act'.
const dialog = element.querySelector("dialog");
const body = dialog.querySelector(".mv-body");
const choice = { topic: "", blind: false, controlled: false };

function ask(more) {
  trigger("act", { ...choice, ...more });
}

document.addEventListener("mm-leaderboard", () => {
  if (dialog.open) return;
  if (!body.childElementCount) body.innerHTML = '<div class="mv-waiting" role="status">Counting the votes</div>';
  dialog.showModal();
  ask();
});

dialog.addEventListener("click", (event) => {
  if (event.target === dialog) return dialog.close(); // beside it
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.close) dialog.close();
  else if (button.dataset.controlled !== undefined) {
    choice.controlled = button.dataset.controlled === "1";
    ask();
  } else if (button.dataset.export) {
    button.closest("details").removeAttribute("open");
    ask({ file: button.dataset.export });
  }
});
dialog.addEventListener("change", ({ target }) => {
  if (target.dataset.topic !== undefined) choice.topic = target.value;
  else if (target.dataset.blind !== undefined) choice.blind = target.value === "1";
  else return;
  ask();
});

const KINDS = ["[data-topic]", "[data-blind]", '[data-controlled="1"]', '[data-controlled=""]'];
watch("value", () => {
  const { html, download } = props.value || {};
  if (download) window.mmParts.save(download);
  if (html === undefined || body.mmHTML === html) return;
  const focused = KINDS.find((kind) => document.activeElement?.matches(kind));
  body.innerHTML = body.mmHTML = html;
  if (focused) body.querySelector(focused)?.focus();
});
