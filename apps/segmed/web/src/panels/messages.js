/** Sentences for the user, over the image. */
import { element, find } from "./dom.js";

const STAYS = { note: 6_000, warning: 12_000, error: 20_000 }; // ms
const AT_MOST = 4; // at a time

/**
 * @param {string} text
 * @param {keyof typeof STAYS} kind
 */
export function say(text, kind = "note") {
  const messages = find("#messages");
  const same = [...messages.children].find((one) => /** @type {HTMLElement} */ (one).dataset.text === text);
  same?.remove();
  const close = element("button", { type: "button", title: "Close" }, "×");
  const message = element("div", { className: `message ${kind}` }, element("span", {}, text), close);
  message.dataset.text = text;
  message.setAttribute("role", kind === "error" ? "alert" : "status");
  close.addEventListener("click", () => message.remove());
  messages.append(message);
  while (messages.children.length > AT_MOST) messages.firstChild.remove();
  setTimeout(() => message.remove(), STAYS[kind]);
}

/**
 * Take a sentence away that is not true any more.
 * @param {string} text
 */
export function unsay(text) {
  for (const one of [...find("#messages").children]) {
    if (/** @type {HTMLElement} */ (one).dataset.text === text) one.remove();
  }
}
