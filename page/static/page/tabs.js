// Words from one tab of the page to the others: an item of localStorage that is set for a moment, which they notice.

export function announce(name, value) {
  localStorage.setItem(`onesource.${name}`, value);
  localStorage.removeItem(`onesource.${name}`);
}

export function onAnnounced(name, call) {
  addEventListener("storage", ({ key, newValue }) => key === `onesource.${name}` && newValue && call(newValue));
}
