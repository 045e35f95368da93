// The Fine-tune tab in the page.
const tab = document.getElementById("mm-finetune");

// --- the views: Train, Predict, Models

function view(name) {
  tab.dataset.view = name;
  for (const button of tab.querySelectorAll("#mm-finetune-views [role=tab]"))
    button.setAttribute("aria-selected", String(button.dataset.view === name));
}

tab.addEventListener("click", (event) => {
  const button = event.target.closest("#mm-finetune-views [data-view]");
  if (button) view(button.dataset.view);
});
document.addEventListener("mm-predict-open", () => view("predict"));
view("train");
