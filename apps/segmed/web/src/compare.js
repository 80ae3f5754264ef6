/** The open object's prompt, run by several models in a workspace of its own, and their outlines over each other. */
import { imagePath, post } from "./api.js";
import { decodeAll } from "./changes.js";
import { css } from "./colours.js";
import { outline } from "./overlay.js";

/** @returns {Promise<{model: string, colour: string, paths: Map<number, Path2D>, voxels: number}>} */
export async function tryModel({ id, client, model, label, prompt, colour }) {
  const own = `${client.slice(0, 110)}~compare`;
  await post(imagePath(id, "/accept"), { client: own });
  await post(imagePath(id, "/clear"), { client: own });
  const { box, foreground, background } = prompt;
  const asked = { client: own, trial: true, model, label, foreground, background, ...(box ? { box } : {}) };
  const answer = await post(imagePath(id, "/prompt"), asked);
  const changes = await decodeAll(answer.changes);
  const voxels = changes.reduce((sum, { values }) => sum + values.reduce((some, value) => some + (value > 0), 0), 0);
  return { model, colour: css(colour), paths: new Map(changes.map((one) => [one.k, outline(one)])), voxels };
}
