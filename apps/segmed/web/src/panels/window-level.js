/** Intensity windows: named ones for the modality, and the numbers that radiologists write as width and level. */

/** @typedef {import("../types.js").Range} Range */

/** Width and level in HU. */
const CT = {
  "Soft tissue": [400, 40],
  Lung: [1500, -600],
  Bone: [1800, 400],
  Brain: [80, 40],
  Liver: [150, 90],
  Mediastinum: [350, 50],
  Stroke: [40, 35],
  Angio: [600, 170],
};
const AIR = -500; // HU; CT has values below

/**
 * Named windows, in the order in which they are offered.
 * @param {{window: Range, range: Range, isColour: boolean}} image its suitable window, and its smallest and largest
 *   value
 * @returns {[string, Range][]}
 */
export function presets({ window, range, isColour }) {
  if (isColour) return [];
  const isCt = range[0] <= AIR;
  /** @type {[string, Range][]} */
  const named = Object.entries(CT).map(([name, [width, level]]) => [name, fromWidthLevel(width, level)]);
  return [["Default window", window], ...(isCt ? named : []), ["Full range", range]];
}

/**
 * Values shown black and white.
 * @param {number} width at least a little above 0
 * @param {number} level the middle
 * @returns {Range}
 */
export const fromWidthLevel = (width, level) => [level - width / 2, level + width / 2];

/**
 * Width and level, rounded as people write them.
 * @param {Range} window values shown black and white
 */
export function toWidthLevel([low, high]) {
  const width = high - low;
  const digits = width >= 20 ? 0 : Math.min(6, Math.max(1, 2 - Math.floor(Math.log10(Math.max(width, 1e-6)))));
  return [width, (low + high) / 2].map((value) => Number(value.toFixed(digits)));
}
