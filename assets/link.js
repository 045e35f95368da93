// The dialog of "Copy link": 'value' is {query, note}; the link is copied where the browser allows it.
const dialog = element.querySelector("dialog");
const field = dialog.querySelector("input");
const said = dialog.querySelector(".mm-link-said");

watch("value", async () => {
  const { query, note, refused } = props.value || {};
  if (!query && !refused) return;
  field.hidden = Boolean(refused);
  said.textContent = refused || "";
  dialog.querySelector(".mm-link-note").textContent = note || "";
  if (!dialog.open) dialog.showModal();
  if (refused) return;
  field.value = `${location.origin}${location.pathname}?${query}`;
  field.focus();
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    said.textContent = "Copied.";
  } catch {
    said.textContent = "Press Ctrl+C to copy it.";
  }
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
});
