// A button that copies: <button data-copy="id of the element" data-copied="Copied" hidden>. Shown only where it can work.

for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  const words = button.querySelector("[data-copy-words]") ?? button;
  const before = words.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    if (!(await copied(source))) return;
    words.textContent = button.dataset.copied;
    document.getElementById("announcer").textContent = button.dataset.copied;
    setTimeout(() => {
      words.textContent = before;
    }, 3000);
  });
}

async function copied(source) {
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    return true;
  } catch {
    // Without HTTPS there is no clipboard interface. The text is selected, so that Ctrl+C takes it.
    getSelection().selectAllChildren(source);
    return document.execCommand("copy");
  }
}
