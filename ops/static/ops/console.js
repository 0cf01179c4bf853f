// Times of the browser's zone, and what the buttons of a transcript copy. Without it the page shows UTC and has all words.
"use strict";

const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
for (const each of document.querySelectorAll(".console time[datetime]")) {
  const local = format.format(new Date(each.dateTime));
  each.title = "ago" in each.dataset ? local : each.textContent;
  if (!("ago" in each.dataset)) each.textContent = local;
}

const told = document.querySelector(".console .told");
const source = (message) => message.querySelector(".source").content.textContent;

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    told.textContent = `${what} copied.`;
  } catch {
    told.textContent = "The browser does not allow copying here: select the text instead.";
  }
}

document.addEventListener("click", ({ target }) => {
  if (target.matches("[data-copy-link]")) copy(location.href.split("#")[0], "Link");
  if (target.matches("[data-copy]")) copy(source(target.closest(".message")), "Message");
  if (target.matches("[data-copy-all]")) {
    const said = [...document.querySelectorAll(".transcript .message")].map(
      (message) => `${message.querySelector("time").textContent} ${message.matches(".user") ? "Question" : "Answer"}\n${source(message)}`,
    );
    copy(said.join("\n\n"), "Conversation");
  }
});
