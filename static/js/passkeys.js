// Makes and uses passkeys: <form data-passkey="create|get" data-options="what the server asks, as JSON">. The browser's
// answer goes into the form's hidden field and is sent like any other form. Without JavaScript the button stays hidden.

function bytes(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
}

function text(buffer) {
  const plain = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(plain).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function asked(json) {
  const options = JSON.parse(json);
  options.challenge = bytes(options.challenge);
  if (options.user) options.user.id = bytes(options.user.id);
  for (const list of [options.excludeCredentials, options.allowCredentials]) {
    for (const credential of list ?? []) credential.id = bytes(credential.id);
  }
  return options;
}

function answered(credential) {
  const parts = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];
  const response = {};
  for (const part of parts) {
    if (credential.response[part]) response[part] = text(credential.response[part]);
  }
  return JSON.stringify({ id: credential.id, rawId: text(credential.rawId), type: credential.type, response });
}

for (const button of document.querySelectorAll("[data-passkey-button]")) {
  const form = button.closest("form[data-passkey]");
  const trouble = form.querySelector("[data-passkey-trouble]");
  if (!window.PublicKeyCredential) {
    form.querySelector("[data-passkey-missing]")?.removeAttribute("hidden");
    continue;
  }
  button.hidden = false;
  button.addEventListener("click", async () => {
    trouble.hidden = true;
    try {
      const publicKey = asked(form.dataset.options);
      const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
      form.elements.namedItem("passkey").value = answered(credential);
    } catch {
      trouble.hidden = false; // the person broke it off, or no passkey of theirs is here
      trouble.focus();
      return;
    }
    form.submit();
  });
}
