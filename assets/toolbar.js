// A menu of the toolbar: its button opens the rows beside it; Escape, a press outside or of a row closes them.
const button = element.querySelector(".mm-drop-button");
const drop = () => button.closest(".mm-drop");
const rows = () => document.getElementById(button.getAttribute("aria-controls"));
const stops = () => [...rows().querySelectorAll("button, input, a[href]")].filter((stop) => stop.offsetParent && !stop.disabled);

function open(shown) {
  if ((button.getAttribute("aria-expanded") === "true") === shown) return;
  button.setAttribute("aria-expanded", String(shown));
  drop().classList.toggle("mm-open", shown);
  if (shown) stops()[0]?.focus();
  document.dispatchEvent(new CustomEvent("mm-menu", { detail: { rows: rows(), shown } }));
}

function shut() {
  const inside = rows().contains(document.activeElement);
  open(false);
  if (inside) button.focus();
}

button.addEventListener("click", () => open(button.getAttribute("aria-expanded") !== "true"));
document.addEventListener("click", (event) => {
  const row = event.target.closest?.("button");
  if (row && rows()?.contains(row) && !row.closest("[data-stay]")) open(false);
});
document.addEventListener("pointerdown", (event) => {
  if (!drop()?.contains(event.target)) open(false);
});
document.addEventListener("keydown", (event) => {
  if (!drop()?.classList.contains("mm-open") || !drop().contains(event.target)) return;
  if (event.key === "Escape") shut();
  else if (["ArrowDown", "ArrowUp"].includes(event.key) && event.target.type !== "text") {
    const at = stops().indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (at >= 0 && at < stops().length) stops()[at].focus();
  } else return;
  event.preventDefault();
  event.stopPropagation();
});
