"""The look of a report. In the app its variables are those of the page; a page of its own brings them along."""

DOCUMENT = """
:root { color-scheme: light dark; --mm-page: #f7f7f8; --mm-card: #fff; --mm-sunk: #f1f1f4; --mm-line: #dedee4;
  --mm-text: #1c1c21; --mm-soft: #5f5f6b; --mm-accent: #4f46e5; --mm-good: #15803d; --mm-caution: #92600a;
  --mm-bad: #b42318; --mm-c0: #4f46e5; --mm-c1: #0d8a6f; --mm-c2: #b3590a; --mm-c3: #a8327f; --mm-small: 12.5px;
  --mb-4: #2877b8; --mb-5: #8b6a1f; --mb-6: #61616e; --mb-7: #b3243f }
@media (prefers-color-scheme: dark) { :root { --mm-page: #131316; --mm-card: #1b1b1f; --mm-sunk: #25252b;
  --mm-line: #34343c; --mm-text: #ececf0; --mm-soft: #a3a3b0; --mm-accent: #8b85ff; --mm-good: #4ade80;
  --mm-caution: #f0c05a; --mm-bad: #ff8f85; --mm-c0: #8b85ff; --mm-c1: #35c9a5; --mm-c2: #f0a35a; --mm-c3: #e683c2;
  --mb-4: #6fb6ee; --mb-5: #d9b96a; --mb-6: #b0b0bd; --mb-7: #ff8095 } }
* { box-sizing: border-box }
body { margin: 0; padding: 24px; background: var(--mm-page); color: var(--mm-text);
  font: 15px/1.55 system-ui, sans-serif }
main { max-width: 1440px; margin: 0 auto }
h1 { margin: 0 0 4px; font-size: 20px; font-weight: 650 }
@media (max-width: 760px) { body { padding: 12px } }
"""

LANES = ("--mm-c0", "--mm-c1", "--mm-c2", "--mm-c3", "--mb-4", "--mb-5", "--mb-6", "--mb-7")
_COLOURS = "".join(
    f".mb-l{i} {{ background: var({name}) }} .mb-f{i} {{ fill: var({name}) }} .mb-t{i} {{ --mb-mine: var({name}) }}\n"
    for i, name in enumerate(LANES)
)

STYLE = (
    _COLOURS
    + """
.mb-report { font-variant-numeric: tabular-nums }
.mb-report h2 { margin: 28px 0 4px; font-size: 16px; font-weight: 650 }
.mb-soft { margin: 0 0 12px; color: var(--mm-soft); font-size: 13.5px }
.mb-wide { overflow-x: auto }
.mb-key { display: inline-block; min-width: 20px; margin-right: 8px; padding: 0 5px; border-radius: 5px;
  color: var(--mm-card); font-size: 12.5px; font-weight: 600; line-height: 20px; text-align: center }
.mb-report .mb-lanes { width: 100%; border: 1px solid var(--mm-line); border-radius: 12px; border-spacing: 0;
  border-collapse: separate; padding: 0;
  background: var(--mm-card); font-size: 13.5px; overflow: hidden }
.mb-report .mb-lanes th, .mb-report .mb-lanes td { padding: 8px 12px; border-top: 1px solid var(--mm-line);
  text-align: right;  white-space: nowrap }
.mb-report .mb-lanes thead th { border: 0; color: var(--mm-soft); font-size: 12.5px; font-weight: 400 }
.mb-report .mb-lanes th:first-child { text-align: left; font-weight: 600; white-space: normal; overflow-wrap: anywhere }
.mb-report .mb-lanes small { margin-left: 8px; color: var(--mm-soft); font-size: 12.5px; font-weight: 400 }
.mb-charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(520px, 100%), 1fr)); gap: 12px;
  align-items: start; margin-top: 16px }
.mb-chart { min-width: 0; margin: 0; padding: 12px 16px 6px; border: 1px solid var(--mm-line); border-radius: 12px;
  background: var(--mm-card) }
.mb-chart figcaption { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: baseline; margin-bottom: 6px;
  font-size: 15px }
.mb-chart figcaption b { font-weight: 600 }
.mb-chart svg { display: block; overflow: visible }
.mb-chart text { fill: var(--mm-text); font-size: 12.5px }
.mb-chart text.mb-tick { fill: var(--mm-soft) }
.mb-chart .mb-letter { font-weight: 700 }
.mb-grid { stroke: var(--mm-line) }
.mb-whisker { stroke: var(--mm-text); stroke-width: 1.5 }
.mb-legend { display: inline-flex; flex-wrap: wrap; gap: 2px 12px; color: var(--mm-soft); font-size: 12.5px }
.mb-legend i { display: inline-block; width: 10px; height: 10px; margin-right: 5px; border-radius: 2px }
rect.mb-good { fill: var(--mm-good) } rect.mb-caution { fill: var(--mm-caution) } rect.mb-bad { fill: var(--mm-bad) }
i.mb-good { background: var(--mm-good) } i.mb-caution { background: var(--mm-caution) }
i.mb-bad { background: var(--mm-bad) }
.mb-report .mb-heat { border: 0; border-spacing: 3px; border-collapse: separate; padding: 0; font-size: 13.5px }
.mb-report .mb-heat th, .mb-report .mb-heat td { border: 0 }
.mb-report .mb-heat th { padding: 4px 8px 4px 0; font-weight: 400; text-align: left }
.mb-report .mb-heat thead th { padding: 0; text-align: center }
.mb-report .mb-heat thead .mb-key { margin: 0 }
.mb-report .mb-heat tbody td { min-width: 64px; padding: 6px 8px; border-radius: 6px; text-align: center;
  background: color-mix(in srgb, var(--mm-accent) var(--mb-heat, 0%), var(--mm-card)) }
.mb-report .mb-heat tbody td.mb-same { background: var(--mm-sunk) }
.mb-report .mb-heat small { display: block; color: var(--mm-text); font-size: 12.5px; opacity: .8 }
.mb-verdicts { display: flex; flex-wrap: wrap; gap: 8px; margin: 8px 0 12px }
.mb-verdict { padding: 4px 12px; border: 1px solid var(--mm-line); border-radius: 999px; background: var(--mm-card);
  font-size: 13.5px }
.mb-v-identical { color: var(--mm-good) } .mb-v-diverged, .mb-v-changed { color: var(--mm-caution) }
.mb-v-error { color: var(--mm-bad) } .mb-v-incomparable { color: var(--mm-soft) }
.mb-parted summary, .mb-cell summary { color: var(--mm-soft); font-size: 13.5px; cursor: pointer }
.mb-part { margin-top: 8px; padding: 10px 14px; border: 1px solid var(--mm-line); border-radius: 10px;
  background: var(--mm-card); font-size: 13.5px; overflow-wrap: anywhere }
.mb-part p { display: flex; gap: 10px; margin: 6px 0 0; white-space: pre-wrap }
.mb-part i { flex: none; width: 36px; color: var(--mm-soft); font-style: normal }
.mb-report mark { border-radius: 3px; background: color-mix(in srgb, var(--mm-caution) 24%, transparent);
  color: inherit; box-decoration-break: clone; -webkit-box-decoration-break: clone }
.mb-pick { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 12px }
.mb-pick label { position: relative; cursor: pointer }
.mb-pick input { position: absolute; opacity: 0 }
.mb-pick span { display: block; padding: 3px 12px; border: 1px solid var(--mm-line); border-radius: 8px;
  background: var(--mm-card); font-size: 13.5px }
.mb-pick input:checked + span { border-color: var(--mm-accent); color: var(--mm-accent) }
.mb-pick input:focus-visible + span { outline: 2px solid var(--mm-accent); outline-offset: 1px }
.mb-answers:has(input[value=differ]:checked) .mb-row:not(.mb-is-differ),
.mb-answers:has(input[value=failed]:checked) .mb-row:not(.mb-is-failed, .mb-is-cut) { display: none }
.mb-row { margin-bottom: 8px; border: 1px solid var(--mm-line); border-radius: 12px; background: var(--mm-card) }
.mb-row > summary { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: baseline; padding: 10px 14px;
  cursor: pointer; list-style: none; overflow-wrap: anywhere }
.mb-row > summary::-webkit-details-marker { display: none }
.mb-row > summary i { min-width: 22px; color: var(--mm-soft); font-style: normal }
.mb-row > summary b { flex: 1 1 260px; min-width: 0; font-weight: 600 }
.mb-long[open] > summary b { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.mb-chip { color: var(--mm-soft); font-size: 12.5px }
.mb-chip.mb-is-same { color: var(--mm-good) } .mb-chip.mb-is-cut { color: var(--mm-caution) }
.mb-chip.mb-is-failed { color: var(--mm-bad) }
.mb-prompt { max-height: 240px; margin: 0 14px 10px; padding: 8px 12px; border-radius: 8px;
  background: var(--mm-sunk); font-size: 14px; white-space: pre-wrap; overflow: auto; overflow-wrap: anywhere }
.mb-cells { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(260px, 1fr); border-top: 1px solid
  var(--mm-line); overflow-x: auto }
.mb-cell { display: flex; flex-direction: column; min-width: 0; padding: 10px 14px;
  border-right: 1px solid var(--mm-line); border-top: 2px solid var(--mb-mine); overflow-wrap: anywhere }
.mb-cell:last-child { border-right: 0 }
.mb-by, .mb-figures { color: var(--mm-soft); font-size: 12.5px }
.mb-by { margin-bottom: 6px }
.mb-text { flex: 1 1 auto; max-height: 420px; font-size: 14.5px; white-space: pre-wrap; overflow: auto }
.mb-figures { margin-top: 8px }
.mb-error { margin: 0; color: var(--mm-bad); font-size: 14px }
.mb-asked { display: grid; grid-template-columns: minmax(120px, max-content) 1fr; gap: 4px 16px; margin: 0;
  font-size: 13.5px }
.mb-asked dt { color: var(--mm-soft); overflow-wrap: anywhere }
.mb-asked dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 760px) {
  .mb-report .mb-lanes thead { display: none }
  .mb-report .mb-lanes tr { display: grid; grid-template-columns: repeat(3, 1fr); padding: 8px 12px; gap: 6px 12px;
    border-top: 1px solid var(--mm-line) }
  .mb-report .mb-lanes tr:first-child { border-top: 0 }
  .mb-report .mb-lanes th, .mb-report .mb-lanes td { padding: 0; border: 0; text-align: left; white-space: normal }
  .mb-report .mb-lanes th { grid-column: 1 / -1 }
  .mb-report .mb-lanes td::before { content: attr(data-label); display: block; color: var(--mm-soft);
    font-size: 12.5px }
  .mb-cells { grid-auto-flow: row; grid-auto-columns: auto }
  .mb-cell { border-right: 0 }
  .mb-asked { grid-template-columns: 1fr; gap: 0 } .mb-asked dd { margin-bottom: 8px }
}
"""
)
