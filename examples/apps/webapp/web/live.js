// Keeps a page true without a click. One tab of the browser has a stream from the
// server and tells the others what it hears, for a browser opens only six
// connections to a server of HTTP/1.1. When the session ends, every tab covers
// what it shows.
"use strict";

const el = (id) => document.getElementById(id);
const page = document.body.dataset;
const tabs = new BroadcastChannel("session");
const reasons = {
  revoked: "You were signed out in another tab, on another device or by an administrator.",
  idle: "Nothing was done here for a long time.",
  longest: "The session has reached its longest time.",
};

let over = false; // the session has ended
let leaving = false; // the user signs out in this tab
let leads = false; // this tab has the stream
let handOver = () => {}; // lets another tab have it
let source = null;
let timer = 0;
let opened = 0; // when the stream was opened last
let used = performance.now(); // when a use of the page was told last
let failures = 0;
let latest = null; // what the stream told of the session

function open() {
  close();
  opened = performance.now();
  const s = (source = new EventSource("/live"));
  s.addEventListener("session", (e) => {
    failures = 0;
    latest = JSON.parse(e.data);
    tell({ kind: "session", session: latest });
  });
  // The request of the next stream brings what has changed.
  s.addEventListener("changed", () => openAfter(opened + 1000 - performance.now()));
  s.addEventListener("ended", (e) => tell({ kind: "ended", why: e.data }));
  s.addEventListener("unsure", lost);
  s.addEventListener("error", () => {
    if (s.readyState === EventSource.CLOSED) lost();
    else tell({ kind: "lost" }); // it connects again by itself
  });
}

function close() {
  clearTimeout(timer);
  if (source) source.close();
  source = latest = null;
}

function openAfter(ms) {
  close();
  timer = setTimeout(open, ms);
}

// lost tries again later, ever more seldom, and not when all others do.
function lost() {
  tell({ kind: "lost" });
  failures = Math.min(failures + 1, 6);
  openAfter(1000 * 2 ** failures * (0.5 + Math.random()));
}

function tell(what) {
  const message = { ...what, of: page.session };
  tabs.postMessage(message);
  hear(message);
}

function hear(message) {
  if (message.of !== page.session) {
    if (message.kind !== "here") return; // of a session before
    if (message.subject !== page.subject) location.replace("/");
    else location.reload(); // they have signed in again
    return;
  }
  switch (message.kind) {
    case "here": // another page of the session was opened: it goes on
      if (over) location.reload();
      else if (latest) tell({ kind: "session", session: latest });
      break;
    case "session":
      if (!over) show(message.session);
      break;
    case "lost":
      if (!over) state("Reconnecting", false);
      break;
    case "ended":
      end(message.why);
      break;
    case "used":
      if (source) open();
  }
}

function show(session) {
  if (session.subject !== page.subject) return location.replace("/");
  if (session.session !== page.session) return location.reload();
  const now = session.roles || [];
  if (page.needs && now.includes(page.needs) !== (page.has === "true")) return location.reload();
  state("Live", true);
  el("people").hidden = !now.includes("admin");
  if (!el("roles")) return;
  el("token").textContent = new Date(session.expires).toISOString().slice(11, 19);
  el("replica").textContent = session.replica;
  const before = [...el("roles").children].map((li) => li.textContent);
  if (before.join() === now.join()) return;
  el("roles").replaceChildren(...now.map((role) => Object.assign(document.createElement("li"), { textContent: role })));
  el("changed").textContent = "Your roles have changed.";
}

function state(text, good) {
  el("live").classList.toggle("on", good);
  if (el("live").textContent !== text) el("live").textContent = text;
}

// end covers the page. A text that is not saved stays in the tab.
function end(why) {
  if (over) return;
  over = true;
  close();
  handOver();
  if (leaving) return;
  document.querySelector("main").hidden = true;
  document.querySelector("header").hidden = true;
  document.title = "Signed out";
  el("kept").hidden = el("discard-kept").hidden = !draft.read();
  el("gone").hidden = false;
  el("why").textContent = reasons[why] || "";
  el("gone-title").focus();
}

// use renews the cookie, and keeps the session from being idle: the stream is
// opened again, at most once in the life of a token.
function use() {
  const now = performance.now();
  if (over || now - used < Number(page.lifetime)) return;
  used = now;
  if (source) open();
  else tell({ kind: "used" });
}

// lead waits until no other tab has the stream. take takes it for the tab that is
// seen: one that is not may have been stopped by the browser.
const lead = () =>
  hold({}).catch(() => {
    yieldTo();
    lead();
  });
const take = () => {
  if (document.visibilityState === "visible" && !leads && !over) hold({ steal: true }).catch(yieldTo);
};
const hold = (options) =>
  navigator.locks.request("live", options, () => {
    if (over || leads) return;
    return new Promise((done) => {
      leads = true;
      handOver = done;
      open();
    });
  });
function yieldTo() {
  leads = false;
  close();
}

function keepNote() {
  const note = el("note");
  const saved = note.value;
  const shown = () => {
    const unsaved = note.value !== saved;
    el("discard").hidden = !unsaved;
    el("note-state").textContent = unsaved ? "Not saved yet; kept in this tab." : "";
    if (unsaved) draft.keep(page.subject, note.value);
    else draft.drop();
  };
  note.addEventListener("input", shown);
  el("discard").addEventListener("click", () => {
    note.value = saved;
    shown();
    note.focus();
  });
  const kept = draft.read();
  if (!kept) return;
  note.value = kept.text;
  if (note.value !== saved) shown();
  else draft.drop(); // it was saved
}

sessionStorage.removeItem("leaving");
if (draft.read() && draft.read().subject !== page.subject) draft.drop();
if (el("note")) keepNote();
el("discard-kept").addEventListener("click", () => {
  draft.drop();
  el("kept").hidden = el("discard-kept").hidden = true;
});
for (const form of document.querySelectorAll("form.leave")) {
  form.addEventListener("submit", (e) => {
    if (draft.read() && !confirm("Your text is not saved. Sign out and discard it?")) return e.preventDefault();
    sessionStorage.setItem("leaving", "yes");
    leaving = true;
  });
}
for (const kind of ["input", "keydown", "pointerdown"]) addEventListener(kind, use, { passive: true });
addEventListener("pageshow", (e) => e.persisted && location.reload());
document.addEventListener("visibilitychange", take);
tabs.addEventListener("message", (e) => hear(e.data));
tabs.postMessage({ kind: "here", of: page.session, subject: page.subject });
take();
lead();
