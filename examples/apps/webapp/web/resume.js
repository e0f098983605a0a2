// Whoever was signed in and comes back after a long pause, or with a new window,
// need not sign in again: the refresh token is in a cookie that goes nowhere else.
"use strict";

fetch("/session/refresh", { method: "POST" }).then((answer) => {
  if (answer.status === 204) location.replace("/");
});
