// The dialog that asks for a token, where CHAT_AUTH=token.

import * as api from "./api.js";

const by = (id) => document.getElementById(id);
let tokenAsked = null; // the token is asked for once, however many calls wait for it

export function askForToken(problem = "") {
  tokenAsked ??= new Promise((resolve) => {
    const box = by("token-dialog");
    by("token-problem").hidden = !(problem && api.token.get());
    by("token-problem").textContent = problem;
    by("token").value = "";
    box.querySelector("form").onsubmit = async (event) => {
      event.preventDefault();
      api.token.set(by("token").value.trim());
      try {
        await api.checkToken();
      } catch (error) {
        if (error.status === 401) {
          by("token-problem").hidden = false;
          by("token-problem").textContent = error.message;
          by("token").select();
          return;
        }
      }
      tokenAsked = null;
      box.close();
      resolve();
    };
    box.onclose = () => tokenAsked && box.showModal(); // nothing works without one
    box.showModal();
  });
  return tokenAsked;
}

export async function withToken(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (error.status !== 401) throw error;
      await askForToken(error.message);
    }
  }
}
