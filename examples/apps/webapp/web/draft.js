// Keeps a text that is not saved, in this tab and with its user. It outlives a
// session that ends elsewhere. It is dropped when the user signs out in this
// tab, and when a page of another user is opened in it.
"use strict";

const draft = {
  read: () => JSON.parse(sessionStorage.getItem("draft")),
  keep: (subject, text) => sessionStorage.setItem("draft", JSON.stringify({ subject, text })),
  drop: () => sessionStorage.removeItem("draft"),
};
