/**
 * Changes of a label map as they travel: a rectangle of one slice, {k, i: [i0, i1], j: [j0, j1], data}, where data is
 * base64 of the deflated label values, rows of constant j, ranges half-open.
 */

const piped = async (bytes, stream) =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());

/** @returns {Promise<{k: number, i: number[], j: number[], values: Uint8Array}>} */
export async function decode({ k, i, j, data }) {
  const packed = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  return { k, i, j, values: await piped(packed, new DecompressionStream("deflate")) };
}

export const decodeAll = (changes) => Promise.all(changes.map(decode));

export async function encode({ k, i, j, values }) {
  const packed = await piped(values, new CompressionStream("deflate"));
  let text = "";
  for (let at = 0; at < packed.length; at += 0x8000) {
    text += String.fromCharCode(...packed.subarray(at, at + 0x8000));
  }
  return { k, i, j, data: btoa(text) };
}
