/** One colour per label value: distinct ones first, then steps around the colour wheel. */

// prettier-ignore
const FIRST = [
  [255, 107, 107], [77, 208, 225], [255, 213, 79], [129, 199, 132], [186, 104, 200], [255, 167, 38],
  [100, 149, 255], [240, 98, 146], [174, 213, 129], [149, 117, 205], [38, 166, 154], [255, 138, 101],
];
const GOLDEN_ANGLE = 137.508; // degrees; neighbours in value are far apart in hue

/**
 * @param {number} value of a label, from 1
 * @returns {number[]} red, green and blue, 0 to 255
 */
export function colour(value) {
  if (value <= FIRST.length) return FIRST[value - 1];
  const hue = (value * GOLDEN_ANGLE) % 360;
  return [0, 8, 4].map((shift) => {
    const k = (shift + hue / 30) % 12;
    return Math.round(255 * (0.6 - 0.36 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

/**
 * The colour of a label value, as CSS writes it.
 * @param {number} value
 */
export const css = (value) => `rgb(${colour(value).join(" ")})`;

/** NiiVue's table: red, green, blue and opacity of 256 values; 0 is not drawn. */
export function lookupTable() {
  const lut = new Uint8ClampedArray(1024);
  for (let value = 1; value < 256; value++) lut.set([...colour(value), 255], 4 * value);
  return { lut, labels: Array.from({ length: 256 }, (_, value) => String(value)) };
}
