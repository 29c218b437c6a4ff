"""The style sheet of the page: one font, one accent, numbers in columns; light or dark as the reader's system is."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2430; --soft: #667085; --faint: #a3abb8; --line: #e4e8ee; --paper: #ffffff; --ground: #f5f6f8;
  --accent: #2451a6; --tint: #f0f4fb; --up: #1a7f52; --down: #b3541e; --warn: #8a5a00; --warn-ground: #fdf3dc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6eaf0; --soft: #98a2b3; --faint: #66707f; --line: #2c3440; --paper: #171c24; --ground: #0f1318;
    --accent: #8fb3f5; --tint: #1d2633; --up: #5cc596; --down: #e39a68; --warn: #f0c674; --warn-ground: #33290f;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body {
  margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 80rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
h1 { margin: 0; font-size: 2.3rem; line-height: 1.15; letter-spacing: -0.02em; }
.lead { margin: 0.4rem 0 1.4rem; font-size: 1.15rem; color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: 0.6rem 2.5rem; margin: 0; }
dt { font-size: 0.78rem; color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
nav {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem 2.5rem; margin: 2rem 0 0;
  padding: 1.3rem 0; border: solid var(--line); border-width: 1px 0;
}
nav h2 { margin: 0 0 0.3rem; font-size: 1rem; }
nav ul { margin: 0; padding: 0; list-style: none; }
section { margin-top: 3.2rem; }
section > h2 { margin: 0; font-size: 1.7rem; letter-spacing: -0.01em; }
.about { margin: 0.1rem 0 0; color: var(--soft); }
.banner {
  display: inline-block; margin-top: 0.5rem; padding: 0.45rem 0.9rem; border-radius: 6px; font-weight: 500;
  background: var(--warn-ground); color: var(--warn);
}
.legend { margin: 0.5rem 0 0; font-size: 0.87rem; color: var(--soft); }
.legend b { color: var(--ink); }
.cards { display: flex; flex-wrap: wrap; gap: 1.4rem; margin-top: 1.4rem; }
article {
  flex: 1 1 auto; max-width: 100%; padding: 1.5rem 1.7rem 1.3rem; border: 1px solid var(--line); border-radius: 10px;
  background: var(--paper); break-inside: avoid-page;
}
h3 { margin: 0; font-size: 1.2rem; }
.tag {
  margin-left: 0.7rem; padding: 0.1rem 0.55rem; border-radius: 99px; vertical-align: 0.12em; font-size: 0.75rem;
  font-weight: 500; background: var(--warn-ground); color: var(--warn);
}
.note, details { width: 0; min-width: 100%; }  /* a card is as wide as its table, not as its sentences */
.note { color: var(--soft); }
.note p { margin: 0.15rem 0 0; max-width: 62rem; }
figure { margin: 1.2rem 0 0.4rem; padding: 0.6rem; border-radius: 8px; background: #ffffff; text-align: center; }
figure svg { max-width: 100%; height: auto; }
table {
  margin-top: 1rem; border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums;
  line-height: 1.35;
}
th, td { padding: 0.36rem 0.6rem; text-align: right; white-space: nowrap; vertical-align: top; }
tbody th { font-weight: 400; text-align: left; }
thead th, thead td { position: sticky; top: 0; z-index: 1; background: var(--paper); }
thead th { font-weight: 600; }
thead tr:last-child > * { border-bottom: 1.5px solid var(--soft); }
thead .sub > * { top: 2rem; padding-top: 0; font-size: 0.78rem; font-weight: 400; color: var(--soft); }
th[colspan] { text-align: center; }
th.group { font-weight: 600; }
tbody:not(:last-child) tr:last-child > *, th.group { border-bottom: 1px solid var(--line); }
tbody:last-child th.group { border-bottom: 0; }
tbody tr:hover > :not(.group) { background: var(--tint); }
tr.average > * { background: var(--tint); }
td b { font-weight: 600; }
td.paper, td.diff, th.diff { padding-left: 0.2rem; }
td.diff, th.diff { padding-right: 1.6rem; }
.below { font-size: 0.82rem; }
.std, .paper { color: var(--soft); font-weight: 400; }
.std { font-size: 0.85em; }
.beside { display: inline-block; min-width: 3rem; text-align: left; }
.up { color: var(--up); }
.down { color: var(--down); }
.same { color: var(--soft); }
.missing { color: var(--faint); font-style: italic; font-size: 0.87rem; }
.mark {
  padding: 0 0.4rem; border-radius: 4px; font-size: 0.76rem;
  background: var(--warn-ground); color: var(--warn);
}
details { margin-top: 0.9rem; font-size: 0.87rem; color: var(--soft); }
summary { cursor: pointer; }
details ul, .none { margin: 0.4rem 0 0; padding-left: 1.2rem; }
code { padding: 0.05rem 0.35rem; border-radius: 4px; background: var(--tint); font-size: 0.87em; }
@media (max-width: 60rem) { .scroll { overflow-x: auto; } }
@media print {
  body { max-width: none; background: none; }
  nav, details { display: none; }
  thead th, thead td { position: static; }
}
"""
