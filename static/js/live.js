// Keeps an open page true. A WebSocket says that something changed; htmx then fetches the changed part anew. While the
// socket is closed the page asks by itself, and no failed answer ever stops it from asking again.
//
// A part that lives has an id, hx-get, hx-trigger="refresh" and data-live="seconds between questions when all is quiet";
// empty: it has ended and changes no more.

const POLL_SECONDS = 5;
const HIDDEN_FACTOR = 3;
const RETRY_SECONDS = { first: 1, most: 30 };
const htmx = window.htmx;
const announcer = document.getElementById("announcer");
const offline = document.getElementById("offline");
const title = document.querySelector("title");
const baseTitle = title.dataset.base ?? document.title;
const favicon = document.getElementById("favicon");

const askedAt = new Map();
const lastAnswer = new Map();
let socketOpen = false;
let attempts = 0;
let leaving = false;

function parts() {
  return [...document.querySelectorAll('[id][data-live]:not([data-live=""])')];
}

function ask(part) {
  askedAt.set(part.id, Date.now());
  htmx.trigger(part, "refresh");
}

function tick() {
  const factor = document.hidden ? HIDDEN_FACTOR : 1;
  for (const part of parts()) {
    const seconds = (socketOpen ? Number(part.dataset.live) || 60 : POLL_SECONDS) * factor;
    if (Date.now() - (askedAt.get(part.id) ?? 0) >= seconds * 1000) ask(part);
  }
}

let soon;
function refreshSoon() {
  clearTimeout(soon);
  soon = setTimeout(() => parts().forEach(ask), 120);
}

function listen() {
  if (leaving || parts().length === 0) return;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/live/`);
  socket.addEventListener("open", () => {
    socketOpen = true;
    attempts = 0;
    refreshSoon(); // what changed before the socket was open, nobody told us
    document.dispatchEvent(new CustomEvent("portal:notice"));
  });
  socket.addEventListener("message", (event) => {
    refreshSoon();
    if (JSON.parse(event.data).type === "notice") document.dispatchEvent(new CustomEvent("portal:notice"));
  });
  socket.addEventListener("close", () => {
    socketOpen = false;
    const seconds = Math.min(RETRY_SECONDS.most, RETRY_SECONDS.first * 2 ** attempts);
    attempts += 1;
    // Jitter: after a restart of the portal not all pages come back in the same second.
    setTimeout(listen, seconds * 1000 * (0.5 + Math.random() / 2));
  });
}

function say(text) {
  if (text) announcer.textContent = text;
}

function statesIn(part) {
  return new Map(
    [...part.querySelectorAll("[data-session]"), part]
      .filter((element) => element.dataset.session)
      .map((element) => [element.dataset.session, element.dataset]),
  );
}

function showInTab() {
  const part = document.querySelector("[data-tab]");
  if (!part) return;
  document.title = part.dataset.tab ? `${part.dataset.tab} · ${baseTitle}` : baseTitle;
  const address = favicon?.dataset[part.dataset.tabTone] ?? favicon?.dataset.plain;
  if (address && favicon.getAttribute("href") !== address) favicon.setAttribute("href", address);
}

function withoutTokens(text) {
  return text.replaceAll(/name="csrfmiddlewaretoken" value="[^"]*"/g, "");
}

let before;
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, xhr } = event.detail;
  if (!target?.dataset.live && target?.id !== "ended") return;
  if (xhr.status !== 200) return;
  if (!xhr.responseText.includes(`id="${target.id}"`)) {
    // Another page came instead, most likely the sign-in page: go there as a whole.
    event.detail.shouldSwap = false;
    leaving = true;
    location.reload();
    return;
  }
  const answer = withoutTokens(xhr.responseText);
  if (lastAnswer.get(target.id) === answer) {
    event.detail.shouldSwap = false;
    return;
  }
  lastAnswer.set(target.id, answer);
  const log = target.querySelector("[data-follow]");
  before = {
    states: statesIn(target),
    open: [...target.querySelectorAll("details[open][id]")].map((element) => element.id),
    log: log && { top: log.scrollTop, atEnd: log.scrollHeight - log.scrollTop - log.clientHeight < 24 },
  };
});

document.addEventListener("htmx:afterSwap", (event) => {
  const part = document.getElementById(event.detail.target?.id);
  if (!part || !before) return;
  const { states, open, log } = before;
  before = undefined;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  followLog(part, log);
  const now = statesIn(part);
  for (const [id, data] of now) {
    if (states.get(id)?.state !== data.state) say(data.announce);
  }
  if (part.id === "cards" && [...states.keys()].some((id) => !now.has(id))) {
    const ended = document.getElementById("ended");
    if (ended) htmx.trigger(ended, "refresh");
  }
  showInTab();
});

function followLog(part, log) {
  const element = part.querySelector("[data-follow]");
  if (element) element.scrollTop = log && !log.atEnd ? log.top : element.scrollHeight;
}

for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, () => {
    if (!leaving) offline.hidden = false;
  });
}
document.addEventListener("htmx:afterOnLoad", () => {
  offline.hidden = true;
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) tick();
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) refreshSoon();
});
window.addEventListener("pagehide", (event) => {
  leaving = !event.persisted;
});

if (htmx) {
  for (const part of parts()) {
    askedAt.set(part.id, Date.now());
  }
  followLog(document);
  showInTab();
  listen();
  setInterval(tick, 1000);
}
