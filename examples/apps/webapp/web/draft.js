// Keeps a text that is not saved: in this tab, under the user who writes it. It
// survives a session that ends elsewhere. It goes when that user signs out in this
// tab, and when a page of another user opens in it.
"use strict";

const draft = {
  read: () => JSON.parse(sessionStorage.getItem("draft")),
  keep: (subject, text) => sessionStorage.setItem("draft", JSON.stringify({ subject, text })),
  drop: () => sessionStorage.removeItem("draft"),
};
