// Keeps the status page alive: times in the viewer's zone, running ages and countdowns, and news from the server.
// Without it the page is complete, in UTC, and reloads by itself.
"use strict";

(() => {
  const live = document.getElementById("live");
  const sign = document.getElementById("live-sign");
  const word = document.getElementById("live-word");
  const said = document.getElementById("said");
  const lost = document.getElementById("lost");
  // The server's clock counts, not the viewer's.
  let ahead = Date.parse(live.dataset.now) - Date.now();
  let headline = document.getElementById("headline").textContent;

  const full = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  function duration(seconds) {
    const rest = Math.max(Math.floor(seconds), 0);
    const index = units.findIndex(([size]) => rest >= size || size === 1);
    const [size, unit] = units[index];
    const first = `${Math.floor(rest / size)} ${unit}`;
    if (size <= 60) return first;
    const [next, name] = units[index + 1];
    const second = Math.floor((rest % size) / next);
    return second ? `${first} ${second} ${name}` : first;
  }

  function text(time, now) {
    const at = Date.parse(time.dateTime);
    const seconds = (at - now) / 1000;
    switch (time.dataset.show) {
      case "age": return seconds > 0 ? "now" : `${duration(-seconds)} ago`;
      case "left": return seconds > 0 ? `in ${duration(seconds)}` : "due now";
      case "countdown": {
        const rest = Math.max(Math.floor(seconds), 0);
        const two = (number) => String(number).padStart(2, "0");
        return `${Math.floor(rest / 3600)}:${two(Math.floor(rest / 60) % 60)}:${two(rest % 60)}`;
      }
      case "clock": return clock.format(at);
      default: return full.format(at);
    }
  }

  function tick() {
    if (live.classList.contains("stale")) return;
    const now = Date.now() + ahead;
    document.getElementById("lost-since").textContent = clock.format(now);
    for (const time of document.querySelectorAll("time[data-show]")) {
      const wanted = text(time, now);
      if (time.textContent !== wanted) time.textContent = wanted;
    }
    for (const bar of document.querySelectorAll("rect[data-from]")) {
      const share = (now - Date.parse(bar.dataset.from)) / 1000 / Number(bar.dataset.span);
      bar.setAttribute("width", Math.min(Math.max(share * 100, 0.4), 100).toFixed(2));
    }
  }

  // Parts are exchanged one by one, and only those that changed, so that focus, selection and an open table stay.
  function show(page) {
    const fresh = new DOMParser().parseFromString(page, "text/html").body;
    const parts = [...fresh.children];
    const known = new Map([...live.children].map((part) => [part.dataset.part, part]));
    const ordered = parts.map((part) => {
      const old = known.get(part.dataset.part);
      if (!old) return part;
      if (old.dataset.source === part.outerHTML) return old;
      const source = part.outerHTML;
      for (const open of old.querySelectorAll("details[open]")) {
        const same = open.id && part.querySelector(`#${open.id}`);
        if (same) same.open = true;
      }
      const focused = old.contains(document.activeElement) ? document.activeElement.closest("[id]") : null;
      part.dataset.source = source;
      old.replaceWith(part);
      if (focused) {
        const again = document.getElementById(focused.id);
        const target = again && (again.matches("details") ? again.querySelector("summary") : again);
        if (target) target.focus({ preventScroll: true });
      }
      return part;
    });
    for (const part of [...live.children]) if (!ordered.includes(part)) part.remove();
    let place = live.firstElementChild;
    for (const part of ordered) {
      if (part === place) place = place.nextElementSibling;
      else live.insertBefore(part, place);
    }
    const now = document.getElementById("headline").textContent;
    if (now !== headline) {
      headline = now;
      said.textContent = now;
      document.title = `${now} · Billing status`;
    }
    tick();
  }

  // Whether the server saw the tables when it last told of them.
  let seen = true;

  function alive() {
    live.classList.remove("stale");
    lost.hidden = true;
    sign.dataset.state = seen ? "live" : "lost";
    word.textContent = seen ? "Live" : "No data";
    document.title = `${headline} · Billing status`;
  }

  // What is shown may be true no more: it loses its colours, and its ages and countdowns stop.
  function gone() {
    live.classList.add("stale");
    lost.hidden = false;
    sign.dataset.state = "lost";
    word.textContent = "Connection lost";
    said.textContent = "Connection lost";
    document.title = "Connection lost · Billing status";
  }

  function take(news) {
    ahead = Date.parse(news.now) - Date.now();
    seen = news.seen;
    if (news.admin !== (live.dataset.admin === "true")) { location.reload(); return; }
    alive();
    show(news.page);
  }

  // Without a stream: every five seconds, and after a minute another try to get one.
  async function poll(left = 12) {
    try {
      const answer = await fetch("status/live", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      take(await answer.json());
    } catch {
      gone();
    }
    setTimeout(left > 1 ? () => poll(left - 1) : listen, 5000);
  }

  function listen() {
    const source = new EventSource("status/events");
    let losing = 0;
    source.addEventListener("open", () => { clearTimeout(losing); losing = 0; });
    source.addEventListener("state", (event) => take(JSON.parse(event.data)));
    source.addEventListener("time", (event) => { ahead = Date.parse(JSON.parse(event.data).now) - Date.now(); alive(); });
    source.addEventListener("error", () => {
      // A stream that was refused does not come back by itself.
      if (source.readyState === EventSource.CLOSED) { clearTimeout(losing); poll(); return; }
      // A browser reconnects a broken stream by itself, mostly within this time.
      if (!losing) losing = setTimeout(gone, Number(lost.dataset.patience));
    });
    addEventListener("pagehide", () => source.close(), { once: true });
  }

  const zone = document.getElementById("zone");
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (name && name !== "UTC") {
    zone.parentElement.firstChild.textContent = `Times are ${name.replaceAll("_", " ")}; point at one for UTC`;
  }
  tick();
  setInterval(tick, 1000);
  listen();
})();
