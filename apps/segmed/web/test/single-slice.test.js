import assert from "node:assert/strict";
import { test } from "node:test";
import { turnSlice } from "../src/image/single-slice.js";

/**
 * A NIfTI file of one slice, 3 columns and 2 rows, whose bytes count up.
 * @param {number} datatype
 * @param {number} bits
 */
function file(datatype, bits) {
  const buffer = new ArrayBuffer(352 + (6 * bits) / 8);
  const header = new DataView(buffer);
  header.setInt16(70, datatype, true);
  header.setInt16(72, bits, true);
  header.setFloat32(108, 352, true);
  new Uint8Array(buffer, 352).forEach((_, at, bytes) => (bytes[at] = at));
  return buffer;
}

/**
 * @param {number} x
 * @param {number} y
 */
const diagonal = (x, y) => [
  [x, 0, 0, 5],
  [0, y, 0, 6],
  [0, 0, 1, 7],
];

test("a picture is stored from its left upper corner, and shown so", () => {
  const { buffer, grid } = turnSlice(file(2, 8), [3, 2, 1], diagonal(-0.5, -0.5));
  // in shown order x runs to the left of the screen and y upwards
  assert.deepEqual([...new Uint8Array(buffer, 352)], [5, 4, 3, 2, 1, 0]);
  assert.equal(grid.offset(0, 0, 0), 5);
  const header = new DataView(buffer);
  assert.equal(header.getFloat32(280, true), 0.5);
  assert.equal(header.getInt16(254, true), 1);
});

test("an axial slice that says otherwise is turned as it says", () => {
  const { buffer } = turnSlice(file(2, 8), [3, 2, 1], diagonal(0.5, 0.5));
  assert.deepEqual([...new Uint8Array(buffer, 352)], [0, 1, 2, 3, 4, 5]);
});

test("colours become opaque", () => {
  const { buffer } = turnSlice(file(128, 24), [3, 2, 1], diagonal(0.5, 0.5));
  assert.equal(new DataView(buffer).getInt16(70, true), 2304);
  assert.equal(new DataView(buffer).getInt16(72, true), 32);
  assert.deepEqual([...new Uint8Array(buffer, 352, 8)], [0, 1, 2, 255, 3, 4, 5, 255]);
});
