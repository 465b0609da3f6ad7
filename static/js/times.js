// Moments in the reader's zone, and the time that is left, counted down. The server has already written both in words;
// this makes them exact. A zone chosen in the profile (data-time-zone on <html>) goes before the browser's.

const root = document.documentElement;
const language = root.lang || undefined;
const timeZone = root.dataset.timeZone || undefined;
const isChinese = language?.startsWith("zh");
const day = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone });
const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone });
const seconds = new Intl.DateTimeFormat(language, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone,
});
const full = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long", timeZone });

function moments(within) {
  for (const element of within.querySelectorAll("time[data-moment]")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const today = day.format(at) === day.format(new Date());
    const hours = element.dataset.moment === "precise" ? seconds.format(at) : clock.format(at);
    const words = today ? hours : `${day.format(at)}${isChinese ? " " : ", "}${hours}`;
    if (element.textContent !== words) element.textContent = words;
    element.title = full.format(at);
  }
}

function unit(amount, name) {
  const text = new Intl.NumberFormat(language, { style: "unit", unit: name, unitDisplay: "short" }).format(amount);
  return isChinese ? text.replace(/(\d)(?=\p{Script=Han})/u, "$1 ") : text; // as the server writes it
}

function words(left) {
  const minutes = Math.floor(left / 60);
  if (minutes >= 60) return `${unit(Math.floor(minutes / 60), "hour")} ${unit(minutes % 60, "minute")}`;
  return minutes >= 1 ? unit(minutes, "minute") : unit(Math.max(0, Math.floor(left)), "second");
}

function countdowns(within) {
  for (const element of within.querySelectorAll("[data-ends-at]")) {
    const left = Math.max(0, (Date.parse(element.dataset.endsAt) - Date.now()) / 1000);
    const text = element.querySelector("[data-left]");
    const bar = element.querySelector("progress");
    if (text && text.textContent !== words(left)) text.textContent = words(left);
    if (bar) {
      // The first value tells how long the whole time is: so many seconds are so many percent.
      element.dataset.whole ??= String(bar.value > 0 ? (left * 100) / bar.value : 0);
      const whole = Number(element.dataset.whole);
      if (whole > 0) bar.value = Math.min(100, (100 * left) / whole);
    }
    element.classList.toggle("is-short", left < Number(element.dataset.shortSeconds));
  }
}

function show(within = document) {
  moments(within);
  countdowns(within);
}

show();
setInterval(() => countdowns(document), 1000);
document.addEventListener("htmx:afterSwap", () => show());
