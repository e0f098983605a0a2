// Updates an open page without a click. One tab of the browser has a stream
// from the server and broadcasts its events to the others: a browser opens only
// six connections to a server of HTTP/1.1. When the session ends, every tab
// hides its content.
"use strict";

const el = (id) => document.getElementById(id);
const page = document.body.dataset;
const tabs = new BroadcastChannel("session");
const reasons = {
  revoked: "You were signed out in another tab, on another device or by an administrator.",
  idle: "Nothing was done here for a long time.",
  longest: "The session has reached its longest time.",
};

let ended = false; // the session has ended
let leaving = false; // the user signs out in this tab
let leader = false; // this tab has the stream
let release = () => {}; // gives up the stream
let source = null;
let timer = 0;
let used = performance.now(); // when use was reported last
let failures = 0;
let latest = null; // the session, as the stream has it

function open() {
  close();
  const s = (source = new EventSource("/live"));
  s.addEventListener("session", (e) => {
    failures = 0;
    latest = JSON.parse(e.data);
    broadcast({ kind: "session", session: latest });
  });
  s.addEventListener("ended", (e) => broadcast({ kind: "ended", reason: JSON.parse(e.data) }));
  s.addEventListener("undecided", retry);
  s.addEventListener("error", () => {
    if (s.readyState === EventSource.CLOSED) retry();
    else broadcast({ kind: "lost" }); // it reconnects by itself
  });
}

function close() {
  clearTimeout(timer);
  if (source) source.close();
  source = latest = null;
}

// retry opens the stream after a pause that grows, with jitter.
function retry() {
  broadcast({ kind: "lost" });
  failures = Math.min(failures + 1, 7);
  close();
  timer = setTimeout(open, 500 * 2 ** failures * (0.5 + Math.random()));
}

function broadcast(what) {
  const message = { ...what, of: page.session };
  tabs.postMessage(message);
  receive(message);
}

function receive(message) {
  if (message.of !== page.session) {
    if (message.kind !== "loaded") return;
    if (message.subject !== page.subject) location.replace("/");
    else location.reload(); // the same user has signed in again
    return;
  }
  switch (message.kind) {
    case "loaded": // another page of the session, which is live
      if (ended) location.reload();
      else if (latest) broadcast({ kind: "session", session: latest });
      break;
    case "session":
      if (!ended) show(message.session);
      break;
    case "lost":
      if (!ended) setStatus("Reconnecting", false);
      break;
    case "ended":
      end(message.reason);
      break;
    case "used":
      if (source) open();
  }
}

// show shows the session. A page that the user may not see any more, or may see
// now, is loaded again.
function show(session) {
  if (session.subject !== page.subject) return location.replace("/");
  if (session.session !== page.session) return location.reload();
  const now = session.roles || [];
  if (page.needs && now.includes(page.needs) !== (page.has === "true")) return location.reload();
  setStatus("Live", true);
  el("people").hidden = !now.includes("admin");
  if (!el("roles")) return;
  el("token").textContent = new Date(session.expires).toISOString().slice(11, 19);
  el("replica").textContent = session.replica;
  const before = [...el("roles").children].map((li) => li.textContent);
  if (before.join() === now.join()) return;
  el("roles").replaceChildren(...now.map((role) => Object.assign(document.createElement("li"), { textContent: role })));
  el("changed").textContent = "Your roles have changed.";
}

function setStatus(text, good) {
  el("live").classList.toggle("on", good);
  if (el("live").textContent !== text) el("live").textContent = text;
}

// end hides the content of the page. A draft stays in the tab.
function end(reason) {
  if (ended) return;
  ended = true;
  close();
  release();
  if (leaving) return;
  document.querySelector("main").hidden = true;
  document.querySelector("header").hidden = true;
  document.title = "Signed out";
  el("kept").hidden = el("discard-kept").hidden = !draft.read();
  el("gone").hidden = false;
  el("reason").textContent = reasons[reason] || "";
  el("gone-title").focus();
}

// use renews the cookie of a user who is active and keeps the session from being
// idle: it opens the stream again, at most once in the lifetime of a token.
function use() {
  const now = performance.now();
  if (ended || now - used < Number(page.lifetime)) return;
  used = now;
  if (source) open();
  else broadcast({ kind: "used" });
}

// lead waits until no other tab has the stream.
function lead() {
  hold({}).catch(() => {
    resign();
    lead();
  });
}

// steal takes the stream for a visible tab: the browser may have suspended the
// one that has it.
function steal() {
  if (document.visibilityState === "visible" && !leader && !ended) hold({ steal: true }).catch(resign);
}

function hold(options) {
  return navigator.locks.request("live", options, () => {
    if (ended || leader) return;
    return new Promise((done) => {
      leader = true;
      release = done;
      open();
    });
  });
}

function resign() {
  leader = false;
  close();
}

function keepNote() {
  const note = el("note");
  const saved = note.value;
  const update = () => {
    const unsaved = note.value !== saved;
    el("discard").hidden = !unsaved;
    el("note-state").textContent = unsaved ? "Not saved yet; kept in this tab." : "";
    if (unsaved) draft.keep(page.subject, note.value);
    else draft.drop();
  };
  note.addEventListener("input", update);
  el("discard").addEventListener("click", () => {
    note.value = saved;
    update();
    note.focus();
  });
  const kept = draft.read();
  if (!kept) return;
  note.value = kept.text;
  if (note.value !== saved) update();
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
    sessionStorage.setItem("leaving", "yes"); // the sign-in page drops the draft
    leaving = true;
  });
}
for (const kind of ["input", "keydown", "pointerdown"]) addEventListener(kind, use, { passive: true });
addEventListener("pageshow", (e) => e.persisted && location.reload());
document.addEventListener("visibilitychange", steal);
tabs.addEventListener("message", (e) => receive(e.data));
tabs.postMessage({ kind: "loaded", of: page.session, subject: page.subject });
steal();
lead();
