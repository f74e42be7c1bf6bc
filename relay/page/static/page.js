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

// The address of the page has times in UTC. The form shows them in the reader's zone, and sends UTC.
function askInLocalTime(form) {
  const inputs = [...form.querySelectorAll("input[type=datetime-local]")];
  for (const input of inputs) {
    const time = new Date(`${input.defaultValue}Z`);
    const local = new Date(time - time.getTimezoneOffset() * 60000);
    if (input.defaultValue && !Number.isNaN(local.valueOf())) input.value = local.toISOString().slice(0, 19);
    form.querySelector(`label[for=${input.id}] span`).remove();
  }
  form.addEventListener("formdata", ({ formData }) => {
    for (const { name } of inputs) {
      const time = new Date(formData.get(name));
      if (!Number.isNaN(time.valueOf())) formData.set(name, time.toISOString().slice(0, 19));
    }
  });
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
  // A stream ends after 25 s and begins again. If none does, what is shown may be wrong, and the page says so.
  const stale = document.querySelector("[data-stale]");
  let seen = new Date();
  let timer = 0;
  let due = 0;
  const sayStaleIn = (milliseconds) => {
    if (timer && due <= Date.now() + milliseconds) return;
    clearTimeout(timer);
    due = Date.now() + milliseconds;
    timer = setTimeout(() => {
      stale.querySelector("time").dateTime = seen.toISOString();
      stale.hidden = false;
      showLocalTimes(stale);
    }, milliseconds);
  };
  const connect = () => {
    const source = new EventSource(root.dataset.live);
    source.addEventListener("open", () => {
      clearTimeout(timer);
      [seen, timer, stale.hidden] = [new Date(), 0, true];
      sayStaleIn(40000);
    });
    source.addEventListener("block", (event) => {
      seen = new Date();
      const { id, html } = JSON.parse(event.data);
      latest.set(id, html);
      show(id);
    });
    source.addEventListener("error", () => {
      const refused = source.readyState === EventSource.CLOSED;
      sayStaleIn(refused ? 0 : 5000);
      if (refused) setTimeout(connect, 30000);
    });
  };
  connect();
}

showLocalTimes(document);
document.querySelector("[data-zone]").textContent =
  `Times are in your zone, ${Intl.DateTimeFormat().resolvedOptions().timeZone}. Point at one for UTC.`;
const search = document.querySelector("form.search");
if (search) askInLocalTime(search);
const live = document.querySelector("[data-live]");
if (live) follow(live);
