// The sign-in page. A user who comes back after a long pause, or with a new
// window, need not sign in again: the refresh token is in a cookie that goes
// nowhere else.
"use strict";

if (sessionStorage.getItem("leaving")) {
  draft.drop(); // they signed out here, and it has succeeded
  sessionStorage.removeItem("leaving");
}

const kept = draft.read();
if (kept) {
  document.getElementById("kept-for").textContent = kept.subject;
  document.getElementById("kept").hidden = false;
  document.getElementById("discard-kept").addEventListener("click", () => {
    draft.drop();
    document.getElementById("kept").hidden = true;
  });
}

if ("resume" in document.body.dataset) {
  fetch("/session/refresh", { method: "POST" }).then((answer) => {
    if (answer.status === 204) location.replace("/");
  });
}
