// The top line: the switch of the theme, and the link by which the keyboard skips to the prompt, on whatever tab.
element.addEventListener("click", (event) => {
  if (event.target.closest("#mm-theme")) window.mmSwitchTheme();
  if (!event.target.closest(".mm-skip")) return;
  event.preventDefault();
  document.querySelector('#mm-tabs [role="tab"]').click(); // the prompt is on the first tab
  requestAnimationFrame(() => document.querySelector("#mm-prompt textarea").focus());
});
