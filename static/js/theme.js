// Light, dark, or as the system says. The choice stays in this browser; without storage it lasts for the page.

const KEY = "footbridge-theme";
const root = document.documentElement;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let choice = stored();

function stored() {
  try {
    return localStorage.getItem(KEY) ?? "auto";
  } catch {
    return "auto";
  }
}

function show() {
  root.dataset.bsTheme = choice === "auto" ? (dark.matches ? "dark" : "light") : choice;
  for (const button of document.querySelectorAll("[data-theme-choice]")) {
    button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
  }
}

function choose(next) {
  choice = next;
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // Private windows may have no storage: the choice then lasts as long as the page.
  }
  show();
}

show();
dark.addEventListener("change", show);
window.addEventListener("storage", (event) => {
  if (event.key === KEY) {
    choice = stored();
    show();
  }
});
document.addEventListener("DOMContentLoaded", () => {
  for (const group of document.querySelectorAll("[data-theme-switch]")) group.hidden = false;
  show();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-theme-choice]");
  if (button) choose(button.dataset.themeChoice);
});
