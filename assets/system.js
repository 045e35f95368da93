// The System tab in the page: the server sends finished HTML (watch 'value'), which is put in place only where it
// changed and keeps the focus; a press of Unload is reported as the event 'unload_model' {key}. The chip in the page's
// head gets the same reading of the best device, the first here.
const root = element.querySelector(".mm-system");

function show() {
  const html = props.value || "";
  if (root.mmHTML === html) return;
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : "";
  root.mmHTML = html;
  root.innerHTML = html;
  window.mmFree(root.querySelector(".mm-sys-free")?.textContent);
  if (focused) (root.querySelector(`[data-key="${focused}"]`) || root.querySelector("[data-key]"))?.focus();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-key]");
  if (!button || button.disabled) return;
  button.disabled = true;
  button.textContent = "Unloading";
  trigger("unload_model", { key: button.dataset.key });
});

watch("value", show);
show();
