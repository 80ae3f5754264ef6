/** The middle slice of a series as a picture, until the volume is there. */
import { find } from "./dom.js";

const picture = () => find("#preview", HTMLImageElement);

/** @param {string} address of the picture; where there is none, nothing is shown */
export function showPreview(address) {
  const one = picture();
  one.hidden = true;
  one.onload = () => (one.hidden = false);
  one.src = address;
}

/** The volume is there, or will not come. */
export function hidePreview() {
  const one = picture();
  one.onload = null;
  one.hidden = true;
  one.removeAttribute("src");
}
