"use strict";
const tip = document.getElementById("tip");
// Native tooltips would show beside ours: titles are for readers without scripts.
document.querySelectorAll("svg.chart title").forEach((title) => title.remove());
const show = (event) => {
  const mark = event.target.closest("[data-tip]");
  tip.style.display = mark ? "block" : "none";
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const width = tip.offsetWidth, height = tip.offsetHeight;
  tip.style.left = Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 8)) + "px";
  tip.style.top = Math.max(8, event.clientY - height - 12) + "px";
};
for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, show);
