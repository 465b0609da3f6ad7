// Forms that are sent once, and fields that are asked only when another one has a certain value. The server checks both.

function lock(form, sent) {
  form.toggleAttribute("data-sent", sent);
  for (const button of form.querySelectorAll("button[type=submit]")) {
    button.disabled = sent;
    const words = button.querySelector("[data-busy-words]");
    if (!words) continue;
    words.dataset.words ??= words.textContent;
    words.textContent = sent ? words.dataset.busyWords : words.dataset.words;
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-once]")) return;
  if (form.hasAttribute("data-sent")) {
    event.preventDefault();
    return;
  }
  form.setAttribute("data-sent", "");
  // After the browser has collected the values: a disabled button would not be among them.
  setTimeout(() => lock(form, true));
});

window.addEventListener("pageshow", (event) => {
  // Back from the next page: the form may be sent again.
  if (event.persisted) for (const form of document.querySelectorAll("form[data-sent]")) lock(form, false);
});

function valueOf(form, name) {
  const found = form.elements.namedItem(name);
  if (!found) return undefined;
  return found.type === "checkbox" ? String(found.checked) : found.value;
}

function adapt(form) {
  for (const part of form.querySelectorAll("[data-shown-when]")) {
    const value = valueOf(form, part.dataset.shownWhen);
    const shown = value === undefined || part.dataset.shownValues.split(" ").includes(value);
    part.hidden = !shown;
    for (const control of part.querySelectorAll("input, select, textarea")) control.disabled = !shown;
  }
}

for (const form of document.querySelectorAll("form:has([data-shown-when])")) {
  adapt(form);
  form.addEventListener("change", () => adapt(form));
}

// The first thing that is wrong is the first thing to read.
document.querySelector("[data-error-summary]")?.focus();
