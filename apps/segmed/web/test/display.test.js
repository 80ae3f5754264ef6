import assert from "node:assert/strict";
import { test } from "node:test";
import { contours } from "../src/overlay/contours.js";
import { volumeText } from "../src/panels/labels.js";
import { fromWidthLevel, presets, toWidthLevel } from "../src/panels/window-level.js";

/**
 * Area that closed lines enclose, holes taken away: they run around labels clockwise, around holes the other way.
 * @param {number[][]} lines
 */
const area = (lines) =>
  lines.reduce((sum, line) => {
    let twice = 0;
    for (let at = 0; at < line.length; at += 2) {
      const [x, y] = [line[at], line[at + 1]];
      const [u, v] = [line[(at + 2) % line.length], line[(at + 3) % line.length]];
      twice += x * v - u * y;
    }
    return sum + twice / 2;
  }, 0);

test("outlines of labels are closed lines around exactly their voxels", () => {
  const [width, height] = [17, 13];
  let seed = 7;
  const random = () => (seed = (seed * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
  const values = Uint8Array.from({ length: width * height }, () => (random() < 0.4 ? 0 : Math.ceil(3 * random())));
  const lines = contours(values, width, height);
  for (const value of [1, 2, 3]) assert.equal(area(lines.get(value)), values.filter((one) => one === value).length);
});

test("straight parts of an outline are one line", () => {
  const ring = Uint8Array.from([4, 4, 4, 4, 0, 4, 4, 4, 4]);
  const lines = contours(ring, 3, 3).get(4);
  assert.deepEqual(lines.map((line) => line.length / 2).sort(), [4, 4]);
  assert.equal(area(lines), 8);
  assert.equal(contours(new Uint8Array(9), 3, 3).size, 0);
});

test("windows are told as width and level", () => {
  assert.deepEqual(fromWidthLevel(400, 40), [-160, 240]);
  assert.deepEqual(toWidthLevel([-160, 240]), [400, 40]);
  assert.deepEqual(toWidthLevel([0, 0.5]), [0.5, 0.25]);
});

test("presets are those of the modality", () => {
  const names = (/** @type {import("../src/types.js").Range} */ range, isColour = false) =>
    presets({ window: [0, 1], range, isColour }).map(([name]) => name);
  assert.ok(names([-1024, 3000]).includes("Lung"));
  assert.deepEqual(names([0, 800]), ["Default window", "Full range"]);
  assert.deepEqual(names([0, 255], true), []);
});

test("volumes are told in units that people read", () => {
  assert.equal(volumeText(1534.2), "1534 ml");
  assert.equal(volumeText(12.34), "12.3 ml");
  assert.equal(volumeText(0.0123), "12 mm³");
  assert.equal(volumeText(NaN, 12), "12 px");
});
