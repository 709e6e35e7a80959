/* SPDX-License-Identifier: Apache-2.0 */
#include "report/style.h"

#include <stddef.h>

/* --p1 to --p9 are plot_color's. */
const char *const report_style[] = {
    ":root{color-scheme:light dark;--paper:#fff;--card:#f7f8fa;--ink:#16191d;--soft:#545d69;"
    "--line:#dde1e7;--accent:#1d4ed8;--good:#0b6b3a;--goodbg:#e7f5ec;--warn:#8a4b00;"
    "--warnbg:#fdf1dc;--bad:#a11414;--badbg:#fdeaea;"
    "--p1:#545d69;--p2:#e3e6eb;--p3:#2563eb;--p4:#c2560c;--p5:#0f7b53;--p6:#7c8591;--p7:#c42b2b;"
    "--p8:#7c3aed;--p9:#8a6414}\n",
    "@media (prefers-color-scheme:dark){:root{--paper:#12151a;--card:#1a1e25;--ink:#e8eaee;"
    "--soft:#a3acb8;--line:#2e343d;--accent:#8ab0ff;--good:#6fd39a;--goodbg:#11301f;"
    "--warn:#f2bd6b;--warnbg:#36270d;--bad:#ff9a94;--badbg:#3d1717;"
    "--p1:#a3acb8;--p2:#343b46;--p3:#7aa5ff;--p4:#ffa05c;--p5:#5fd0a0;--p6:#8b94a1;--p7:#ff8078;"
    "--p8:#bb9bff;--p9:#d9b45b}}\n",
    "*{box-sizing:border-box}\n",
    "html{-webkit-text-size-adjust:100%}\n",
    "body{margin:0;background:var(--paper);color:var(--ink);"
    "font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\n",
    "main{max-width:70rem;margin:0 auto;padding:3rem 1.5rem 4rem}\n",
    "h1{font-size:2.1rem;line-height:1.2;letter-spacing:-.02em;margin:0 0 .4rem;font-weight:650;"
    "overflow-wrap:anywhere}\n",
    "h2{font-size:1.3rem;letter-spacing:-.01em;margin:3rem 0 .8rem;padding-top:1.1rem;"
    "border-top:1px solid var(--line);font-weight:650}\n",
    "h3{font-size:1rem;margin:0 0 .25rem;font-weight:650}\n",
    "p{margin:0 0 .9rem;max-width:52rem;overflow-wrap:anywhere}\n",
    ".below{font-size:1.05rem;color:var(--soft);margin-bottom:1rem}\n",
    "a{color:var(--accent)}\n",
    "code,pre{font:.86em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}\n",
    ".command{max-width:none;background:var(--card);border:1px solid "
    "var(--line);border-radius:.5rem;"
    "padding:.7rem 1rem;margin-bottom:1.4rem}\n",
    ".badges{list-style:none;margin:0 0 1.4rem;padding:0;display:flex;flex-wrap:wrap;gap:.45rem}\n",
    ".badges li,.answer h3 span{font-size:.8rem;font-weight:600;padding:.18rem .6rem;"
    "border-radius:1rem;background:var(--card);color:var(--soft);white-space:nowrap}\n",
    ".badges .good,.answer .good{background:var(--goodbg);color:var(--good)}\n",
    ".badges .warn,.answer .warn{background:var(--warnbg);color:var(--warn)}\n",
    ".badges .bad,.answer .bad{background:var(--badbg);color:var(--bad)}\n",
    ".box{max-width:none;padding:.75rem 1rem;border-radius:.5rem;border-left:4px solid var(--line);"
    "background:var(--card)}\n",
    ".box+.box{margin-top:-.45rem}\n",
    ".box.good{border-color:var(--good);background:var(--goodbg)}\n",
    ".box.warn{border-color:var(--warn);background:var(--warnbg)}\n",
    ".box.bad{border-color:var(--bad);background:var(--badbg)}\n",
    ".facts{margin:0 0 "
    "1.4rem;display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));"
    "column-gap:2.5rem;font-size:.92rem}\n",
    ".facts div{display:grid;grid-template-columns:8.5rem 1fr;gap:.8rem;padding:.4rem 0;"
    "border-bottom:1px solid var(--line)}\n",
    ".facts dt{color:var(--soft)}\n",
    ".facts dd{margin:0;overflow-wrap:anywhere}\n",
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(14rem,1fr));gap:.8rem;"
    "margin:0 0 1.4rem}\n",
    ".tile{background:var(--card);border:1px solid var(--line);border-radius:.7rem;"
    "padding:.9rem 1.1rem;display:flex;flex-direction:column}\n",
    ".tile .what{font-size:.82rem;color:var(--soft)}\n",
    ".tile .figure{font-size:1.75rem;line-height:1.3;font-weight:650;letter-spacing:-.02em;"
    "font-variant-numeric:tabular-nums;overflow-wrap:anywhere}\n",
    ".tile .note{font-size:.8rem;color:var(--soft)}\n",
    ".scroll{overflow-x:auto;margin:0 0 1.4rem}\n",
    "table{border-collapse:collapse;width:100%;font-size:.89rem;font-variant-numeric:tabular-nums}"
    "\n",
    ".caption{color:var(--soft);font-size:.89rem;margin-bottom:.4rem}\n",
    "th,td{padding:.45rem .7rem;text-align:right;border-bottom:1px solid var(--line);"
    "vertical-align:top}\n",
    "thead th{font-weight:600;vertical-align:bottom;border-bottom:2px solid var(--line);"
    "line-height:1.3}\n",
    "thead small{display:block;font-weight:400;color:var(--soft)}\n",
    "tbody th,.t{text-align:left}\n",
    "tbody th{font-weight:500;min-width:9rem}\n",
    "tbody tr.good{background:var(--goodbg)}\n",
    "tbody tr.warn{color:var(--soft)}\n",
    "tbody tr.bad{background:var(--badbg)}\n",
    ".plots{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1.2rem;margin:0 0 "
    "1.4rem}\n",
    "figure{margin:0;border:1px solid var(--line);border-radius:.7rem;padding:1rem 1rem .7rem;"
    "min-width:0;break-inside:avoid}\n",
    "figure.wide{grid-column:1/-1;max-width:46rem}\n",
    "figcaption{font-weight:600;font-size:.95rem;margin:0 0 .4rem}\n",
    "figure svg{display:block;width:100%;height:auto}\n",
    "figure svg text{font-family:inherit}\n",
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.3rem 0 .2rem;"
    "padding:0;font-size:.84rem;color:var(--soft)}\n",
    ".legend i{display:inline-block;width:1.3rem;margin-right:.45rem;vertical-align:middle;"
    "border-top:3px solid currentColor}\n",
    ".legend i.dash{border-top-style:dashed}\n"
    ".legend i.struck{border-top-style:dotted}\n"
    ".legend i.struck::after{content:'\\D7';position:absolute;margin:-1rem 0 0 .35rem}\n",
    ".legend i.dot{width:.6rem;height:.6rem;border:0;border-radius:50%;background:currentColor}\n",
    "details{margin:.3rem 0 .6rem}\n",
    "summary{cursor:pointer;color:var(--soft);font-size:.84rem}\n",
    "pre{overflow:auto;max-height:30rem;background:var(--card);border-radius:.5rem;padding:1rem;"
    "white-space:pre-wrap;overflow-wrap:anywhere}\n",
    ".answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(24rem,1fr));gap:.2rem "
    "2.5rem}\n",
    ".answer{padding:.8rem 0;border-bottom:1px solid var(--line)}\n",
    ".answer p{margin:0;color:var(--ink);font-size:.93rem}\n",
    "@media screen and (max-width:46rem){main{padding:1.5rem 1rem 3rem}h1{font-size:1.6rem}"
    ".plots,.answers,.facts{grid-template-columns:minmax(0,1fr)}"
    ".facts div{grid-template-columns:7rem 1fr}"
    ".tiles{grid-template-columns:repeat(2,minmax(0,1fr))}.tile .figure{font-size:1.4rem}"
    "figure{padding:.7rem .5rem}figure svg text{font-size:15px}}\n",
    "@page{size:A4;margin:14mm}\n",
    "@media print{:root{color-scheme:light;--paper:#fff;--card:#f7f8fa;--ink:#000;--soft:#444;"
    "--line:#ccc;--accent:#1d4ed8;--good:#0b6b3a;--goodbg:#e7f5ec;--warn:#8a4b00;"
    "--warnbg:#fdf1dc;--bad:#a11414;--badbg:#fdeaea;--p1:#444;--p2:#ddd;--p3:#2563eb;--p4:#c2560c;"
    "--p5:#0f7b53;--p6:#7c8591;--p7:#c42b2b;--p8:#7c3aed;--p9:#8a6414}"
    "html{font-size:11px}body{font-size:1rem;print-color-adjust:exact;-webkit-print-color-adjust:"
    "exact}"
    "main{max-width:none;padding:0}h2,h2+p,.caption{break-after:avoid}h2{margin-top:1.8rem}.tiles{"
    "grid-template-columns:repeat(4,1fr)}"
    ".scroll{overflow:visible}th,td{padding:.3rem .4rem}"
    "figure details{display:none}.tile,.answer,tr,.box{break-inside:avoid}}\n",
    NULL};
