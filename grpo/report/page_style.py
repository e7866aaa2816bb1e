"""The style sheet of report.html."""

STYLE = """
:root { color-scheme: light dark; --page:#f6f7f9; --card:#fff; --ink:#1b1f26; --soft:#626a76; --edge:#e1e4e9;
  --grid:#e8eaee; --good:#157a50; --bad:#b3372c; --warn:#8a5a00; --warn-page:#fff6e0; --prefill:#e8eefb;
  --c1:#2563c9; --c2:#c2571a; --c3:#178a5a; --c4:#8b4fc0; --c5:#a37a08; --c6:#c23a6b; --c7:#2a8fa3; --c8:#9aa1ac; }
@media (prefers-color-scheme: dark) { :root { --page:#14171c; --card:#1c2027; --ink:#e4e7ec; --soft:#98a1ae;
  --edge:#2e343e; --grid:#2a3039; --good:#4cc38a; --bad:#f0776c; --warn:#e8b44f; --warn-page:#2c2517;
  --prefill:#22304b; --c1:#6ea2f5; --c2:#ee8d52; --c3:#4cc38a; --c4:#bb8cea; --c5:#d8b23c; --c6:#ee7ba4;
  --c7:#5fc3d6; --c8:#6f7885; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif; }
main { max-width:1240px; margin:0 auto; padding:28px 20px 60px; }
h1 { font-size:26px; margin:0; } h2 { font-size:18px; margin:36px 0 12px; } h3 { font-size:15px; margin:18px 0 8px; }
.soft { color:var(--soft); } .good { color:var(--good); } .bad { color:var(--bad); }
code,pre { font:13px/1.45 ui-monospace,"SF Mono",Menlo,Consolas,monospace; }
pre { margin:0; white-space:pre-wrap; overflow-wrap:anywhere; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(190px,1fr)); gap:12px; margin-top:20px; }
.tile,figure,.card { background:var(--card); border:1px solid var(--edge); border-radius:10px; }
.tile { padding:14px 16px; } .tile.wide { grid-column:span 2; }
.tile b { display:block; font-size:25px; line-height:1.25; font-variant-numeric:tabular-nums; }
.tile.wide b { font-size:27px; }
.tile span { color:var(--soft); font-size:13px; }
.tile b span { font-size:inherit; color:inherit; } .tile b .good { color:var(--good); }
.tile b .bad { color:var(--bad); }
figure.wide { grid-column:1/-1; overflow-x:auto; } .wide svg { min-width:620px; }
.charts { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr)); gap:12px; }
figure { margin:0; padding:12px 12px 6px; }
figcaption { display:flex; flex-wrap:wrap; gap:4px 10px; padding:0 4px 6px; }
.unit { color:var(--soft); } .legend { margin-left:auto; display:flex; flex-wrap:wrap; gap:0 12px; font-size:13px; }
.key i { display:inline-block; width:10px; height:10px; border-radius:3px; margin-right:5px; background:var(--c); }
svg { display:block; width:100%; height:auto; } svg text { fill:var(--soft); font-size:11px; }
.grid { stroke:var(--grid); } .line { fill:none; stroke:var(--c); stroke-width:2; stroke-linejoin:round; }
.faint { stroke-width:1; opacity:.4; } .dot,.area { fill:var(--c); } .area { opacity:.85; }
.hit { fill:var(--ink); opacity:0; } .hit:hover { opacity:.08; }
.c1{--c:var(--c1)} .c2{--c:var(--c2)} .c3{--c:var(--c3)} .c4{--c:var(--c4)}
.c5{--c:var(--c5)} .c6{--c:var(--c6)} .c7{--c:var(--c7)} .c8{--c:var(--c8)}
.warning { background:var(--warn-page); border:1px solid var(--edge); border-left:4px solid var(--warn);
  border-radius:6px; padding:8px 12px; margin:6px 0; overflow-wrap:anywhere; }
.card > p:first-child { margin-top:0; }
.card { padding:14px 16px; margin:10px 0; } .samples { display:grid; gap:12px; align-items:start;
  grid-template-columns:repeat(auto-fit,minmax(min(360px,100%),1fr)); } .samples .card { margin:0; min-width:0; }
.chip { display:inline-block; border:1px solid var(--edge); border-radius:20px; padding:0 9px; margin:0 4px 4px 0;
  font-size:13px; font-variant-numeric:tabular-nums; }
.role { color:var(--soft); font-size:12px; margin-top:10px; text-transform:uppercase; letter-spacing:.05em; }
.prefill { background:var(--prefill); border-radius:3px; } .scroll { max-height:340px; overflow:auto; }
details { background:var(--card); border:1px solid var(--edge); border-radius:8px; margin:6px 0; padding:8px 14px; }
summary { cursor:pointer; font-weight:600; } table { border-collapse:collapse; margin-top:8px; width:100%; }
td { border-top:1px solid var(--edge); padding:4px 10px 4px 0; vertical-align:top; overflow-wrap:anywhere; }
td:first-child { color:var(--soft); width:34%; }
"""
