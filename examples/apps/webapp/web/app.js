// Keeps the page true: who answers, how long the token lives, and whether another
// tab has signed out.
"use strict";

const time = (s) => new Date(s).toISOString().slice(11, 19) + " UTC";

async function look() {
  try {
    const answer = await fetch("/api/me", { headers: { Accept: "application/json" } });
    if (answer.status === 401) {
      document.getElementById("gone").hidden = false;
      return;
    }
    if (answer.ok) {
      const me = await answer.json();
      document.getElementById("replica").textContent = me.replica;
      document.getElementById("token").textContent = "until " + time(me.expires);
    }
  } catch {
    // The server cannot be reached; the next look may.
  }
  setTimeout(look, 2000);
}

look();
