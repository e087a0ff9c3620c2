"""The style of the HTML pages."""

CSS = """
:root { color-scheme: light; --ink: #1e293b; --quiet: #64748b; --line: #e2e8f0; --accent: #2563eb; }
* { box-sizing: border-box; }
body { margin: 0; background: #f1f5f9; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
header { margin-bottom: 18px; }
h1 { margin: 0; font-size: 26px; letter-spacing: -0.01em; }
.brand { margin: 0; color: var(--accent); font-weight: 700; letter-spacing: 0.04em; }
details { background: white; border: 1px solid var(--line); border-radius: 10px;
  margin: 14px 0; padding: 14px 18px; box-shadow: 0 1px 2px rgb(15 23 42 / 5%); }
summary { font-weight: 650; font-size: 17px; cursor: pointer; }
details[open] > summary { margin-bottom: 10px; }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif !important; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; }
.quiet { color: var(--quiet); font-size: 13.5px; margin: 8px 0 0; }
.warn { background: #fef3c7; border-left: 4px solid #d97706; padding: 8px 12px;
  border-radius: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums;
  width: 100%; }
th, td { padding: 5px 7px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 600; white-space: normal; vertical-align: bottom; }
tbody th, thead th:first-child { text-align: left; }
th.text, td.text { text-align: left; }
tr.best { background: #eff6ff; }
.noise { color: var(--quiet); } .worse { color: #dc2626; } .better { color: #059669; }
@media print { details { break-inside: avoid; } }
"""
