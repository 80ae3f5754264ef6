/**
 * One colour per label value: those of Okabe and Ito (2008), which people with any colour vision tell apart, then steps
 * around the colour wheel. The server stores the same colours.
 */

// prettier-ignore
const FIRST = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167],
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
