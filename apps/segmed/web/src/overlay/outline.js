/** The border of a mask on one slice. */

/**
 * Edges between voxels of the mask and others, each [from i, from j, to i, to j] in stored voxels, where voxel (i, j)
 * is the square from (i, j) to (i + 1, j + 1).
 * @param {import("../types.js").LabelRectangle} mask any value above 0 belongs to it
 * @returns {number[][]}
 */
export function borderEdges({ i, j, values }) {
  const width = i[1] - i[0];
  const height = j[1] - j[0];
  /** @type {(x: number, y: number) => boolean} */
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[x + y * width] > 0;
  const edges = [];
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      const [left, top] = [i[0] + x, j[0] + y];
      if (inside(x, y) !== inside(x, y - 1)) edges.push([left, top, left + 1, top]);
      if (inside(x, y) !== inside(x - 1, y)) edges.push([left, top, left, top + 1]);
    }
  }
  return edges;
}

/**
 * The same as a path in stored voxels.
 * @param {import("../types.js").LabelRectangle} mask
 */
export function outline(mask) {
  const path = new Path2D();
  for (const [i0, j0, i1, j1] of borderEdges(mask)) {
    path.moveTo(i0, j0);
    path.lineTo(i1, j1);
  }
  return path;
}
