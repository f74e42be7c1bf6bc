// Makes the page live and shows times in the reader's zone. Everything works without it.
"use strict";

const forms = {
  today: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" }),
  other: new Intl.DateTimeFormat(undefined, {
    day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
  }),
  minute: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" }),
  full: new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" }),
};

function showLocalTimes(root) {
  const now = new Date().toDateString();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const time = new Date(element.dateTime);
    if (Number.isNaN(time.valueOf())) continue;
    const form = element.dataset.form || (time.toDateString() === now ? "today" : "other");
    element.textContent = forms[form].format(time);
    element.title = `${forms.full.format(time)} · ${time.toISOString().replace("T", " ").replace(".000Z", " UTC")}`;
  }
  for (const bar of root.querySelectorAll("g[data-from]")) {
    const [from, to] = [bar.dataset.from, bar.dataset.to].map((each) => forms.minute.format(new Date(each)));
    const title = bar.querySelector("title");
    title.textContent = `${from} to ${to}: ${title.textContent.split(" UTC: ")[1]}`;
  }
}

// Replaces blocks of the page with those that the server sends. One that is in use is replaced later.
function follow(root) {
  const latest = new Map();
  const shown = new Map();
  const show = (id) => {
    const block = document.getElementById(id);
    if (!latest.has(id) || latest.get(id) === shown.get(id)) return;
    if (block.contains(document.activeElement) || block.matches(":hover")) return;
    block.innerHTML = latest.get(id);
    shown.set(id, latest.get(id));
    showLocalTimes(block);
  };
  for (const block of root.children) {
    for (const end of ["mouseleave", "focusout"]) block.addEventListener(end, () => setTimeout(show, 0, block.id));
  }
  const connect = () => {
    const source = new EventSource(root.dataset.live);
    source.addEventListener("block", (event) => {
      const { id, html } = JSON.parse(event.data);
      latest.set(id, html);
      show(id);
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 30000); // refused: too many pages are open
    });
  };
  connect();
}

showLocalTimes(document);
document.querySelector("[data-zone]").textContent =
  `Times are in your zone, ${Intl.DateTimeFormat().resolvedOptions().timeZone}. Point at one for UTC.`;
const live = document.querySelector("[data-live]");
if (live) follow(live);
