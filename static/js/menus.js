// Menus are <details> and work alone; this closes them as people expect. Stop asks first, in a dialog:
// without JavaScript its link leads to the session's page, where the button stands beside what it does.

function openMenus() {
  return document.querySelectorAll("details.menu[open]");
}

document.addEventListener("click", (event) => {
  for (const menu of openMenus()) {
    if (!menu.contains(event.target)) menu.open = false;
  }
  const stop = event.target.closest("[data-stop]");
  if (stop && askBeforeStop(stop)) event.preventDefault();
  if (event.target.closest("[data-close-dialog]")) event.target.closest("dialog").close();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of openMenus()) {
    const hadFocus = menu.contains(document.activeElement);
    menu.open = false;
    if (hadFocus) menu.querySelector("summary").focus();
  }
});

document.addEventListener("focusout", (event) => {
  const menu = event.target.closest("details.menu[open]");
  if (menu && event.relatedTarget && !menu.contains(event.relatedTarget)) menu.open = false;
});

function askBeforeStop(control) {
  const dialog = document.getElementById("stop-dialog");
  if (!dialog?.showModal) return false;
  dialog.querySelector("form").action = control.dataset.stop;
  dialog.querySelector("[data-stop-name]").textContent = control.dataset.stopName;
  for (const menu of openMenus()) menu.open = false;
  dialog.addEventListener("close", () => focusAgain(control.dataset.stop), { once: true });
  dialog.showModal();
  return true;
}

// What was pressed may be folded away again, or another one by now: the page goes on under the dialog.
function focusAgain(address) {
  const control = document.querySelector(`[data-stop="${address}"]`);
  (control?.closest("details.menu")?.querySelector("summary") ?? control)?.focus();
}

// On a phone the page one is on may be beyond the edge of the navigation.
document.querySelector(".site-nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
