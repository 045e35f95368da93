// The top line: the switch of the theme, the link by which the keyboard skips to the prompt, on whatever tab, and the
// chip of the machine, whose free memory is read anew when an answer has begun or ended, also one that was refused, and
// when a person comes back to the page.
element.addEventListener("click", (event) => {
  if (event.target.closest("#mm-theme")) window.mmSwitchTheme();
  if (!event.target.closest(".mm-skip")) return;
  event.preventDefault();
  document.querySelector('#mm-tabs [role="tab"]').click(); // the prompt is on the first tab
  requestAnimationFrame(() => document.querySelector("#mm-prompt textarea").focus());
});

// What is free, as the last part of the chip.
window.mmFree = (text) => {
  const chip = element.querySelector(".mm-chip");
  if (text && chip) chip.textContent = chip.textContent.replace(/[^,]*$/, ` ${text}`);
};

const free = () => document.hidden || server.free().then(window.mmFree, () => {}); // an app that has ended says nothing
let answered;
document.addEventListener("mm-state", () => {
  const was = answered;
  answered = window.mmState.columns.map((column) => `${column.running}${column.turns.length}`).join();
  if (was !== undefined && was !== answered) free();
});
document.addEventListener("visibilitychange", free);
