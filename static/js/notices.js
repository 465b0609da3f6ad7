// Tells the person at this browser what the portal has to tell: as a notice of the browser, once for all open pages, and
// to screen readers on each page. On pages that live, live.js says when there is something new; others ask by themselves.

const POLL_SECONDS = 30;
const QUIET_MS = 10 * 60 * 1000;
const STORE = "portal-notices";
const KEPT = 100;
const { lang, dataset } = document.documentElement;
const clock = new Intl.DateTimeFormat(lang || undefined, {
  hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: dataset.timeZone || undefined,
});
const announcer = document.getElementById("announcer");
const address = document.body.dataset.notices;
const spoken = new Set();
let isFirstLook = true;

function read() {
  try {
    const { looked = 0, told = [] } = JSON.parse(localStorage.getItem(STORE)) ?? {};
    return { looked, told };
  } catch {
    return { looked: 0, told: [] }; // no storage, or somebody else's words in it
  }
}

function write(state) {
  try {
    localStorage.setItem(STORE, JSON.stringify(state));
  } catch {
    // Private windows may have no storage: then each page tells by itself, and the notice's tag makes them one.
  }
}

// One page at a time looks through what was told, so that of several open pages one tells.
function alone(work) {
  return navigator.locks ? navigator.locks.request(STORE, work) : work();
}

function words(notice) {
  return notice.at ? `${notice.before}${clock.format(new Date(notice.at))}${notice.after}` : notice.before;
}

function show(notice) {
  if (!("Notification" in window) || Notification.permission !== "granted") return;
  try {
    const shown = new Notification(notice.title, { body: words(notice), tag: `notice-${notice.id}`, lang });
    shown.addEventListener("click", () => {
      window.focus();
      location.assign(notice.url);
      shown.close();
    });
  } catch {
    // Some phones know the class but refuse to make one outside a service worker.
  }
}

function speak(notices, isNews) {
  const fresh = notices.filter((notice) => !spoken.has(notice.id));
  for (const notice of fresh) spoken.add(notice.id);
  // Where a part of the page lives, live.js has said that it is ready or has ended.
  const hasLive = document.querySelector("[data-live]") !== null;
  const said = fresh.filter((notice) => ["time", "idle", "visit"].includes(notice.kind) || !hasLive);
  if (isNews && said.length > 0) {
    announcer.textContent = said.map((notice) => `${notice.title}. ${words(notice)}`).join(" ");
  }
}

function tell(notices) {
  const { looked, told } = read();
  const fresh = notices.filter((notice) => !told.includes(notice.id));
  // Nobody had a page open for a while: what happened meanwhile is on the page, and no news any more.
  const isStale = isFirstLook && Date.now() - looked > QUIET_MS;
  write({ looked: Date.now(), told: [...told, ...fresh.map((notice) => notice.id)].slice(-KEPT) });
  if (!isStale) fresh.forEach(show);
  speak(notices, !isFirstLook || (!isStale && fresh.length > 0));
  isFirstLook = false;
}

let timer;
async function look() {
  clearTimeout(timer);
  try {
    const answer = await fetch(address, { headers: { Accept: "application/json" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return; // signed out: the next page will say so
    if (answer.ok) {
      const { notices } = await answer.json();
      await alone(() => tell(notices));
    }
  } catch {
    // The portal does not answer: ask again later.
  }
  clearTimeout(timer);
  timer = setTimeout(look, POLL_SECONDS * 1000);
}

function showOffers() {
  if (!("Notification" in window)) return;
  for (const offer of document.querySelectorAll("[data-browser-notices]")) {
    offer.hidden = false;
    for (const part of offer.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== Notification.permission;
  }
}

document.addEventListener("click", async (event) => {
  if (!event.target.closest("[data-ask-notices]")) return;
  await Notification.requestPermission();
  showOffers();
});
document.addEventListener("portal:notice", look);

showOffers();
look();
