/** What the work on an image computes from label maps: rectangles to send, free values, differences to tell. */

/**
 * The smallest rectangle around the voxels of each slice, ranges half-open.
 * @param {import("../types.js").Voxel[]} voxels
 * @returns {{k: number, i: number[], j: number[]}[]}
 */
export function rectangles(voxels) {
  const slices = new Map();
  for (const [i, j, k] of voxels) {
    const one = slices.get(k) ?? { k, i: [i, i + 1], j: [j, j + 1] };
    one.i = [Math.min(one.i[0], i), Math.max(one.i[1], i + 1)];
    one.j = [Math.min(one.j[0], j), Math.max(one.j[1], j + 1)];
    slices.set(k, one);
  }
  return [...slices.values()];
}

/**
 * The value of a label; a new one gets the next free value.
 * @param {Object<string, number>} labels values by name
 * @param {string} name
 */
export function valueOf(labels, name) {
  const taken = new Set(Object.values(labels));
  let free = 1;
  while (taken.has(free)) free++;
  return labels[name] ?? free;
}

/**
 * Numbers of voxels by the names of the labels that have any.
 * @param {Object<string, number>} labels values by name
 * @param {number[]} counts by value
 * @returns {Object<string, number>}
 */
export function voxelsByName(labels, counts) {
  const named = Object.entries(labels).map(([name, value]) => [name, counts[value]]);
  return Object.fromEntries(named.filter(([, count]) => count));
}

/**
 * A sentence on labels that were saved with other numbers of voxels than the page shows; "" if there are none.
 * @param {Object<string, number>} shown voxels by name
 * @param {Object<string, number>} saved voxels by name
 */
export function difference(shown, saved) {
  const names = [...new Set([...Object.keys(shown), ...Object.keys(saved)])];
  const parts = names
    .filter((name) => (shown[name] ?? 0) !== (saved[name] ?? 0))
    .map((name) => `${name}: ${saved[name] ?? 0} voxels saved, ${shown[name] ?? 0} shown`);
  return parts.length ? `What was saved differs from what was shown (${parts.join("; ")}). It is shown again.` : "";
}
