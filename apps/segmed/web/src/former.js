/** Labels that were saved before the present one: a list in a dialog, each with a button that brings it back. */
import { get, imagePath, post } from "./api.js";
import { element, find } from "./dom.js";

const when = (text) => (text ? new Date(text).toLocaleString() : "");

/**
 * @param {string} id of the image
 * @param {object} does restored(version), fail(error)
 */
export async function showFormer(id, does) {
  try {
    const found = await get(imagePath(id, "/history"));
    find("#former-none").hidden = found.length > 0;
    find("#former-labels").replaceChildren(...found.map((one) => row(id, one, does)));
    find("#history").showModal();
  } catch (error) {
    does.fail(error);
  }
}

function row(id, one, does) {
  const use = element("button", { type: "button", title: "Save this label again; the present one is kept" }, "Restore");
  use.addEventListener("click", async () => {
    find("#history").close();
    try {
      await post(imagePath(id, `/history/${one.version}`), {});
      await does.restored(one.version);
    } catch (error) {
      does.fail(error);
    }
  });
  const cells = [when(one.saved), when(one.replaced), one.by, one.labels.join(", ")];
  return element("tr", {}, ...cells.map((text) => element("td", {}, text)), element("td", {}, use));
}
