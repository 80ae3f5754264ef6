/** Labels that were saved before the present one: a list in a dialog, each with a button that brings it back. */
import { get, imagePath, post } from "../server/requests.js";
import { element, find } from "./dom.js";

/**
 * @typedef {object} FormerLabel
 * @property {string} version
 * @property {string} saved when
 * @property {string} replaced when
 * @property {string} by whom
 * @property {string[]} labels names
 *
 * @typedef {object} FormerActions
 * @property {(version: string) => Promise<void>} restored
 * @property {(error: import("../server/requests.js").Failure) => void} fail
 */

/** @param {string} text ISO 8601 */
const when = (text) => (text ? new Date(text).toLocaleString() : "");

const dialog = () => find("#history", HTMLDialogElement);

/**
 * @param {string} id of the image
 * @param {FormerActions} actions
 */
export async function showFormer(id, actions) {
  try {
    /** @type {FormerLabel[]} */
    const found = await get(imagePath(id, "/history"));
    find("#former-none").hidden = found.length > 0;
    find("#former-labels").replaceChildren(...found.map((one) => row(id, one, actions)));
    dialog().showModal();
  } catch (error) {
    actions.fail(error);
  }
}

/**
 * @param {string} id
 * @param {FormerLabel} one
 * @param {FormerActions} actions
 */
function row(id, one, actions) {
  const use = element("button", { type: "button", title: "Save this label again; the present one is kept" }, "Restore");
  use.addEventListener("click", async () => {
    dialog().close();
    try {
      await post(imagePath(id, `/history/${one.version}`), {});
      await actions.restored(one.version);
    } catch (error) {
      actions.fail(error);
    }
  });
  const cells = [when(one.saved), when(one.replaced), one.by, one.labels.join(", ")];
  return element("tr", {}, ...cells.map((text) => element("td", {}, text)), element("td", {}, use));
}
