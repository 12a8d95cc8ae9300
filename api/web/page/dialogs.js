// Dialogs: the key, and what cannot be undone. The browser keeps the focus inside and gives it back.

import { byId } from "/page/dom.js";
import { key, setKey } from "/page/api.js";

export function startDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    for (const close of dialog.querySelectorAll("[data-close]")) close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && inBackdrop(dialog, event) && dialog.close());
  }
}

function inBackdrop(dialog, event) {
  const box = dialog.getBoundingClientRect();
  return event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
}

/** Asks before `work`, which may take a while and may fail. True once it is done, false where it was thought better of. */
export function confirmed(title, text, work, { label = "Delete" } = {}) {
  const [dialog, yes, no, error] = ["confirm", "confirm-yes", "confirm-no", "confirm-error"].map(byId);
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  error.textContent = "";
  yes.textContent = label;
  yes.disabled = false;
  return new Promise((resolve) => {
    let done = false;
    yes.onclick = async () => {
      yes.disabled = true;
      try {
        await work();
        done = true;
        dialog.close();
      } catch (failure) {
        error.textContent = [failure.message, failure.hint].filter(Boolean).join(" ");
        yes.disabled = false;
      }
    };
    no.onclick = () => dialog.close();
    dialog.onclose = () => resolve(done);
    dialog.showModal();
    no.focus();
  });
}

/** `used` is called when the key was changed. */
export function startKey(used) {
  const [dialog, form, field, error, forget] = ["key-dialog", "key-form", "key-field", "key-error", "key-forget"].map(byId);
  const open = (message) => {
    error.textContent = message;
    forget.hidden = !key();
    if (!dialog.open) dialog.showModal();
    field.focus();
  };
  byId("key-open").addEventListener("click", () => open(""));
  window.addEventListener("key-wanted", (event) => {
    byId("key-open").hidden = false;
    open(event.detail.code === "key_missing" ? "" : event.detail.message);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = field.value.trim();
    if (!/^[\x21-\x7e]+$/.test(typed)) {
      error.textContent = typed ? "A key has no spaces or special characters." : "Type or paste a key first.";
      field.focus();
      return;
    }
    setKey(typed);
    field.value = "";
    dialog.close();
    used();
  });
  forget.addEventListener("click", () => {
    setKey("");
    dialog.close();
    used();
  });
}
