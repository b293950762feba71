"""The style of a report: light and dark, from a phone's width to a desk's, without anything from outside."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #5c6670; --ground: #fdfdfc; --box: #f1f2f0; --edge: #d5d8da;
  --strong: #b34700; --c0: #1f6fb2; --c1: #b34700; --c2: #2b7a3d; --c3: #8a3fa0; --c4: #6b6b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --dim: #9aa4ae; --ground: #15181b; --box: #1e2226;
  --edge: #373d43; --strong: #ff9d52; --c0: #6ab7ff; --c1: #ff9d52; --c2: #6fce86; --c3: #d39bea; --c4: #d6d04a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5em 0; }
h2 { font-size: 1.25rem; margin: 2em 0 0.5em; border-bottom: 1px solid var(--edge); }
h3 { font-size: 1rem; margin: 0 0 0.4em; text-transform: capitalize; }
.lead { font-size: 1.1rem; max-width: 46em; }
small, figcaption, .missing { color: var(--dim); }
figure { margin: 1.2em 0; }
figure > figcaption { max-width: 46em; font-size: 0.9rem; }
video, img { max-width: 100%; height: auto; display: block; image-rendering: pixelated; background: var(--box); }
.media { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 24px; }
.media figure { margin: 0; }
.media video { width: 100%; min-height: 190px; object-fit: contain; object-position: top;
  background: #181818; }
#real_beside_dream, #grid { grid-column: 1 / -1; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid var(--edge); white-space: nowrap; }
th[scope=row], th:first-child, .pairs td, td:last-child { text-align: left; }
.pairs td, .pairs th { white-space: normal; }
thead th { color: var(--dim); font-weight: normal; }
tbody th { font-weight: normal; }
tbody tr:first-child th { font-weight: inherit; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 16px; }
.chart { margin: 0; padding: 8px; background: var(--box); border-radius: 6px; }
.chart figcaption { color: var(--ink); }
.chart svg { width: 100%; height: auto; display: block; }
.chart text { fill: var(--dim); font-size: 11px; }
.grid { stroke: var(--edge); stroke-width: 1; }
.curve { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.legend { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 0.8rem; }
.key { display: inline-block; width: 14px; height: 3px; margin-right: 5px; vertical-align: middle; }
.c0 { stroke: var(--c0); --key: var(--c0); } .c1 { stroke: var(--c1); --key: var(--c1); }
.c2 { stroke: var(--c2); --key: var(--c2); } .c3 { stroke: var(--c3); --key: var(--c3); }
.c4 { stroke: var(--c4); --key: var(--c4); } .key { background: var(--key); } .dot { fill: var(--key); }
.intervals { padding: 8px 0; }
.row { display: grid; grid-template-columns: 15em 1fr 13em; gap: 12px; align-items: center; font-size: 0.9rem; }
.track { position: relative; height: 22px; border-left: 1px solid var(--edge); }
.range { position: absolute; top: 6px; height: 10px; background: var(--c0); opacity: 0.45; border-radius: 5px;
  min-width: 2px; }
.mean { position: absolute; top: 3px; height: 16px; width: 3px; margin-left: -1px; background: var(--c0); }
.strong .range, .strong .mean { background: var(--strong); }
.strong .name, .strong .told { font-weight: 600; }
.told { font-variant-numeric: tabular-nums; white-space: nowrap; }
.scale .track { border: 0; border-top: 1px solid var(--edge); }
.scale .track span { position: absolute; transform: translateX(-50%); color: var(--dim); font-size: 0.8rem; }
.scale .track span:last-child { transform: translateX(-100%); }
.scale .track span:first-child { transform: none; }
details { margin: 0.8em 0; }
summary { cursor: pointer; padding: 4px 0; font-weight: 600; }
@media (max-width: 640px) {
  .row { grid-template-columns: 1fr auto; gap: 0 8px; }
  .row .track { grid-row: 2; grid-column: 1 / -1; }
  .scale .name, .scale .told { display: none; }
}
"""
