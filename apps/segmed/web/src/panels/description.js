/** The image in words, for those who do not see it: its planes, slices and window. */

/**
 * @param {{plane: string, index: number, count: number}[]} tiles planes on the screen
 * @param {[number, number]} window values shown black and white
 */
export function describe(tiles, [low, high]) {
  const planes = tiles.map(({ plane, index, count }) =>
    count > 1 ? `${plane} slice ${index + 1} of ${count}` : plane,
  );
  const round = (/** @type {number} */ value) => String(Number(value.toPrecision(6)));
  return `${planes.join(", ")}; black at ${round(low)}, white at ${round(high)}`;
}
