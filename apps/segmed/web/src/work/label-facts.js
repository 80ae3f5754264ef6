/** What the page tells of the labels of an image: voxels, volumes, and names of further objects of a kind. */

const MM3_PER_ML = 1000;

/**
 * Each label with its size, in the order of their values.
 * @param {Object<string, number>} labels values by name
 * @param {number[]} counts of voxels by value
 * @param {number[][]} affine stored voxel to right-anterior-superior mm
 * @param {boolean} isFlat whether the image has no volume: a single slice, or one whose sizes were assumed
 * @returns {import("../panels/labels.js").LabelFacts[]}
 */
export function labelFacts(labels, counts, affine, isFlat = false) {
  const ml = isFlat ? NaN : voxelVolume(affine) / MM3_PER_ML;
  return Object.entries(labels)
    .map(([name, value]) => ({ name, value, voxels: counts[value] ?? 0, ml: (counts[value] ?? 0) * ml }))
    .sort((a, b) => a.value - b.value);
}

/**
 * The volume of a voxel in mm³: the determinant of the affine.
 * @param {number[][]} affine
 */
export function voxelVolume([a, b, c]) {
  const [x, y, z] = [1, 2, 0].map((at, n) => {
    const other = [2, 0, 1][n];
    return b[at] * c[other] - b[other] * c[at];
  });
  return Math.abs(a[0] * x + a[1] * y + a[2] * z);
}

/**
 * The name of the next object of a kind, "cell 3" after "cell 1" and "cell 2".
 * @param {Object<string, number>} labels values by name
 * @param {string} kind "cell", or the name of an object such as "cell 2"
 */
export function nextObject(labels, kind) {
  const base = kind.replace(/ \d+$/, "");
  let n = 1;
  while (`${base} ${n}` in labels) n++;
  return `${base} ${n}`;
}
