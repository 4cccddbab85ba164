"use strict";
// Before anything is painted: what was chosen last, and that scripts run at all.
document.documentElement.classList.add("scripted");
try {
  const chosen = localStorage.getItem("robustbench_cmic-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* a browser that keeps nothing for files */ }
