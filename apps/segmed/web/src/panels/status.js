/** The line below the image: its name, what is under the mouse, how long the last request took. */
import { find } from "./dom.js";

/**
 * @param {import("../types.js").Voxel | null} voxel under the mouse
 * @param {string} intensity
 * @param {string | undefined} label
 */
export function showPlace(voxel, intensity, label) {
  const parts = voxel ? [voxel.join(", "), intensity, ...(label ? [label] : [])] : [];
  find("#place").textContent = parts.join("   ");
}

/** @param {string} title of the image */
export function showTitle(title) {
  find("#welcome").hidden = true;
  find("#title").textContent = title;
}

/** @param {number} seconds from the press to the picture; 0 for none */
export function showSeconds(seconds) {
  const field = find("#seconds", HTMLDataElement);
  field.value = String(seconds);
  field.textContent = seconds ? `${seconds.toFixed(2)} s` : "";
}
