/** The open object's prompt, run by another model in a workspace of its own, so that the label map stays as it is. */
import { MaskOutline } from "../overlay/cross-section.js";
import { decodeAll } from "../server/changes.js";
import { imagePath, post } from "../server/requests.js";

const NAME_LENGTH = 110; // characters of a client's name that leave room for ours

/**
 * @typedef {object} Trial
 * @property {string} id of the image
 * @property {string} client who works
 * @property {string} model
 * @property {string} label
 * @property {import("../types.js").Prompt} prompt
 */

/**
 * @param {Trial} trial
 * @returns {Promise<{model: string, outline: MaskOutline, voxels: number}>}
 * @throws {import("../server/requests.js").Failure}
 */
export async function tryModel({ id, client, model, label, prompt }) {
  const own = `${client.slice(0, NAME_LENGTH)}~compare`;
  await post(imagePath(id, "/accept"), { client: own });
  await post(imagePath(id, "/clear"), { client: own });
  const { box, foreground, background, plane } = prompt;
  const where = plane ? { plane } : {};
  const asked = { client: own, trial: true, model, label, foreground, background, ...(box ? { box } : {}), ...where };
  const answer = await post(imagePath(id, "/prompt"), asked);
  const outline = new MaskOutline(await decodeAll(answer.changes));
  return { model, outline, voxels: outline.voxels };
}
