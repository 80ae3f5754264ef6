/**
 * Changes of a label map as they travel: rectangles of one slice, whose label values are deflated and written in
 * base64, rows of constant j, ranges half-open.
 *
 * @typedef {import("../types.js").LabelRectangle} LabelRectangle
 * @typedef {import("../types.js").PackedRectangle} PackedRectangle
 */

const BYTES_PER_CALL = 0x8000; // a function takes no more arguments than that everywhere

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {CompressionStream | DecompressionStream} stream
 */
async function piped(bytes, stream) {
  const through = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(through).arrayBuffer());
}

/**
 * @param {PackedRectangle} packed
 * @returns {Promise<LabelRectangle>}
 */
export async function decode({ k, i, j, data, axis }) {
  const packed = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  return {
    k,
    i,
    j,
    values: await piped(packed, new DecompressionStream("deflate")),
    ...(axis === undefined ? {} : { axis }),
  };
}

/** @param {PackedRectangle[]} changes */
export const decodeAll = (changes) => Promise.all(changes.map(decode));

/**
 * @param {LabelRectangle} rectangle
 * @returns {Promise<PackedRectangle>}
 */
export async function encode({ k, i, j, values }) {
  const packed = await piped(/** @type {Uint8Array<ArrayBuffer>} */ (values), new CompressionStream("deflate"));
  let text = "";
  for (let at = 0; at < packed.length; at += BYTES_PER_CALL) {
    text += String.fromCharCode(...packed.subarray(at, at + BYTES_PER_CALL));
  }
  return { k, i, j, data: btoa(text) };
}
