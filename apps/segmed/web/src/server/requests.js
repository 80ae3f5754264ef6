/** Requests to the server. Paths are relative, so that the page works below any address. */

export const SILENCE = "The server does not answer. Is it still running?";
const BROKEN = "The server's answer broke off. Try again; your work is kept on the server.";
const STRANGE = "Something other than SegMed answers at this address. Ask who runs the server.";

const CONFLICT = 409; // the state is not the one that the request was meant for

/** A request that failed, with the server's sentence; `status` is 0 when nobody answered. */
export class Failure extends Error {
  /**
   * @param {string} message
   * @param {number} status
   */
  constructor(message, status) {
    super(message);
    this.status = status;
    this.stale = status === CONFLICT; // whether the page shows what the server does not have
  }
}

/**
 * The answer to a request.
 * @param {string} path
 * @param {RequestInit} [options]
 * @throws {Failure}
 */
export async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Failure(SILENCE, 0);
  }
  if (answer.ok) return answer;
  if (answer.status === 401) location.assign("login");
  const told = await answer.json().catch(() => ({}));
  const detail = typeof told.detail === "string" ? told.detail : `The server refused this (${answer.status}).`;
  throw new Failure(detail, answer.status);
}

/**
 * @param {string} path
 * @returns {Promise<any>} the JSON of the answer
 * @throws {Failure}
 */
export const get = async (path) => jsonOf(await ask(path));

/** @param {Response} answer */
async function jsonOf(answer) {
  const text = await answer.text().catch(() => {
    throw new Failure(BROKEN, 0);
  });
  try {
    return JSON.parse(text);
  } catch {
    throw new Failure(STRANGE, 0); // such as the page of a proxy
  }
}

/**
 * @param {string} path
 * @param {object} body sent as JSON
 * @returns {Promise<any>} the JSON of the answer
 * @throws {Failure}
 */
export async function post(path, body) {
  const answer = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return jsonOf(answer);
}

/**
 * The bytes of an answer.
 * @param {Response} answer
 * @param {(fraction: number) => void} progress hears how much has come, where the size is known
 * @returns {Promise<ArrayBuffer>}
 * @throws {Failure} the connection broke
 */
export async function bytesOf(answer, progress) {
  const size = Number(answer.headers.get("Content-Length"));
  if (!size || answer.headers.has("Content-Encoding")) return answer.arrayBuffer();
  const bytes = new Uint8Array(size);
  let filled = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read().catch(() => {
      throw new Failure(BROKEN, 0);
    });
    if (done) return bytes.buffer;
    bytes.set(value, filled);
    filled += value.length;
    progress(filled / size);
  }
}

/**
 * The file name in a Content-Disposition header.
 * @param {string | null} header
 */
export function fileName(header) {
  const told = header ?? "";
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(told);
  return encoded ? decodeURIComponent(encoded[1]) : (/filename="?([^";]+)"?/i.exec(told)?.[1] ?? "segmentation");
}

/**
 * Save the answer as a file, under the name that the server gives it.
 * @param {string} path
 * @throws {Failure}
 */
export async function download(path) {
  const answer = await ask(path);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = fileName(answer.headers.get("Content-Disposition"));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * The address of an image, or of something of it.
 * @param {string} id
 * @param {string} rest such as "/prompt"
 */
export const imagePath = (id, rest = "") => `api/images/${encodeURIComponent(id)}${rest}`;
