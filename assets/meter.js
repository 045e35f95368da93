// How full the context of each column is: 'value' has a meter for each column that can tell.
function place(column, { share, level, words }) {
  let meter = column.querySelector(":scope > .mm-meter");
  if (!meter) {
    meter = document.createElement("div");
    meter.className = "mm-meter";
    meter.setAttribute("role", "meter");
    meter.setAttribute("aria-label", "Context");
    meter.setAttribute("aria-valuemin", "0");
    meter.setAttribute("aria-valuemax", "100");
    meter.append(document.createElement("i"), document.createElement("span"));
    column.append(meter);
  }
  meter.dataset.level = level;
  meter.title = words;
  meter.setAttribute("aria-valuenow", share);
  meter.setAttribute("aria-valuetext", words);
  meter.style.setProperty("--mm-share", `${share}%`);
  meter.querySelector("span").textContent = words;
}

function show() {
  const meters = new Map((Array.isArray(props.value) ? props.value : []).map((one) => [one.key, one]));
  for (const column of document.querySelectorAll("#mm-board .mm-column")) {
    const mine = meters.get(column.dataset.key);
    if (mine) place(column, mine);
    else column.querySelector(":scope > .mm-meter")?.remove();
  }
}

watch("value", show);
show();
