/** What the page is doing, in words over the image; `aria-busy` of the image's area tells the same to programs. */
import { find } from "./dom.js";

/** @type {Set<string>} */
const working = new Set();

/**
 * @param {string} who a part of the page
 * @param {string} words what it is doing; "" when it has finished
 */
export function showBusy(who, words) {
  if (words) {
    working.add(who);
    find("#busy span").textContent = `${words} …`;
  } else working.delete(who);
  find("#busy").hidden = !working.size;
  find("main").ariaBusy = String(working.size > 0);
}
