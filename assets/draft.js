// What stands in the prompt box outlives a reload: Gradio makes one by itself when the app was away for a while.
{
  const key = "multimodel-draft";
  const box = () => document.querySelector("#mm-prompt textarea");
  const { recalled, store } = window.mmParts;

  window.addEventListener("pagehide", () => box() && store(key, { text: box().value }));
  const bring = () => {
    if (!box()) return requestAnimationFrame(bring);
    const { text } = recalled(key);
    const asked = [...document.querySelectorAll(".mm-column .mm-prompt")].at(-1)?.textContent;
    if (!text || box().value || text === asked) return; // a link filled it, or it was sent after all
    box().value = text;
    box().dispatchEvent(new Event("input", { bubbles: true }));
  };
  const [visit] = performance.getEntriesByType("navigation");
  if (visit?.type === "reload") document.addEventListener("mm-state", bring, { once: true }); // not in a page opened anew
}
