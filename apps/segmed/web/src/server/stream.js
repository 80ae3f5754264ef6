/**
 * Answers in parts: long requests tell how far they are, and what they have found, before their answer comes. Each
 * line is a JSON object with a key `event`.
 */
import { Failure, ask } from "./requests.js";

const SILENT = 30_000; // ms without a line, which the server sends every two seconds

/**
 * @typedef {object} Progress
 * @property {number} done slices
 * @property {number} most slices that there can be
 * @property {number | null} left seconds, at most
 * @property {import("../types.js").PackedRectangle[]} changes to show meanwhile
 * @property {Object<string, number>} labels values by name in these
 */

/**
 * The objects of a stream of lines.
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 * @param {number} silent ms after which a line is due
 * @returns {AsyncGenerator<any>}
 * @throws {Failure} no line came for that time, or the connection broke
 */
export async function* lines(reader, silent = SILENT) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    const due = new Promise((_, reject) => {
      const words = `The server has said nothing for ${Math.round(silent / 1000)} s. Is it still running?`;
      timer = setTimeout(() => reject(new Failure(words, 0)), silent);
    });
    const read = reader.read().catch(() => {
      throw new Failure("The connection to the server broke while it was working. Ask again.", 0);
    });
    const { done, value } = await Promise.race([read, due]).finally(() => clearTimeout(timer));
    rest += decoder.decode(value, { stream: !done });
    const parts = rest.split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
    if (done) return;
  }
}

/**
 * The answer to a request that may take long.
 * @param {string} path
 * @param {object} body sent as JSON
 * @param {(progress: Progress) => Promise<void> | void} tell hears of the progress; one call after the other
 * @returns {Promise<any>}
 * @throws {Failure} which is stale where something was shown already
 */
export async function postWatched(path, body, tell) {
  const headers = { "Content-Type": "application/json", Accept: "application/x-ndjson" };
  const answer = await ask(path, { method: "POST", headers, body: JSON.stringify(body) });
  const reader = answer.body.getReader();
  try {
    for await (const line of lines(reader)) {
      if (line.event === "answer") return line;
      if (line.event === "error") throw new Failure(line.detail, line.status);
      await tell(line);
    }
    throw new Failure("The server stopped while it was working. Ask again.", 0);
  } catch (error) {
    reader.cancel().catch(() => {});
    throw Object.assign(error, { stale: true });
  }
}
