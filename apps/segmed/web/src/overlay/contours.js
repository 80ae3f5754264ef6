/** Outlines of all labels on one slice, as closed lines that can be dashed. */

/**
 * The borders of each label as closed lines along the edges of voxels. A voxel (x, y) is the square from (x, y) to
 * (x + 1, y + 1); lines have the label on their right hand.
 * @param {ArrayLike<number>} values of a slice, rows of constant y; 0 is no label
 * @param {number} width number of voxels in a row
 * @param {number} height number of rows
 * @returns {Map<number, number[][]>} lines by label value, each [x0, y0, x1, y1, …] with its turns only
 */
export function contours(values, width, height) {
  const starts = edges(values, width, height);
  const stride = width + 1;
  /** @type {Map<number, number[][]>} */
  const lines = new Map();
  for (const [value, from] of starts) {
    const found = [];
    for (const start of from.keys()) {
      while (from.get(start)?.length) found.push(walk(from, start, stride));
    }
    lines.set(value, found);
  }
  return lines;
}

/**
 * Directed unit edges between a label and what it meets, by value and by the corner where they begin.
 * @param {ArrayLike<number>} values
 * @param {number} width
 * @param {number} height
 */
function edges(values, width, height) {
  /** @type {Map<number, Map<number, number[]>>} */
  const all = new Map();
  const stride = width + 1;
  const corner = (/** @type {number} */ x, /** @type {number} */ y) => x + y * stride;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const value = values[at];
      if (!value) continue;
      const up = y === 0 || values[at - width] !== value;
      const down = y === height - 1 || values[at + width] !== value;
      const left = x === 0 || values[at - 1] !== value;
      const right = x === width - 1 || values[at + 1] !== value;
      if (!(up || down || left || right)) continue;
      if (!all.has(value)) all.set(value, new Map());
      const from = all.get(value);
      const add = (/** @type {number} */ start, /** @type {number} */ end) =>
        from.has(start) ? from.get(start).push(end) : from.set(start, [end]);
      if (up) add(corner(x, y), corner(x + 1, y));
      if (right) add(corner(x + 1, y), corner(x + 1, y + 1));
      if (down) add(corner(x + 1, y + 1), corner(x, y + 1));
      if (left) add(corner(x, y + 1), corner(x, y));
    }
  }
  return all;
}

/**
 * One closed line from a corner; its edges are taken out.
 * @param {Map<number, number[]>} from
 * @param {number} start
 * @param {number} stride corners in a row
 */
function walk(from, start, stride) {
  const line = [];
  let step = 0;
  let at = start;
  do {
    const next = from.get(at).pop();
    if (next - at !== step) line.push(at % stride, Math.floor(at / stride));
    step = next - at;
    at = next;
  } while (at !== start);
  return line;
}
