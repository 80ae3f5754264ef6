/**
 * NiiVue does not bring images of one slice into its order, and takes RGB of that kind as RGBA only. They are turned
 * here: i to the right and j downwards as stored, unless an axial slice says otherwise.
 */
import { Grid } from "./grid.js";

const HEADER = 352;
const RGB24 = 128;
const RGBA32 = 2304;

/** @returns {{buffer: ArrayBuffer, grid: Grid}} a NIfTI file in shown order, and how it came about */
export function turnPicture(buffer, shape, affine) {
  const length = (row, column) => Math.abs(affine[row][column]);
  const axial = [0, 1].every((axis) => [0, 1, 2].every((row) => length(row, axis) <= length(axis, axis)));
  // the screen shows x to the left and y upwards
  const right = axial && affine[0][0] > 0 ? 1 : -1;
  const up = axial && affine[1][1] > 0 ? 1 : -1;
  const grid = new Grid(shape, [right, up * 2, 3]);
  const old = new DataView(buffer);
  const colour = old.getInt16(70, true) === RGB24;
  const from = old.getFloat32(108, true);
  const bytes = old.getInt16(72, true) / 8;
  const width = colour ? 4 : bytes;
  const [columns, rows] = shape;
  const turned = new Uint8Array(HEADER + grid.size * width);
  turned.set(new Uint8Array(buffer, 0, HEADER - 4));
  const source = new Uint8Array(buffer, from);
  for (let j = 0; j < rows; j++) {
    for (let i = 0; i < columns; i++) {
      const at = HEADER + grid.offset(i, j, 0) * width;
      for (let b = 0; b < bytes; b++) turned[at + b] = source[(i + j * columns) * bytes + b];
      if (colour) turned[at + 3] = 255;
    }
  }
  writeHeader(new DataView(turned.buffer), colour, affine);
  return { buffer: turned.buffer, grid };
}

function writeHeader(header, colour, affine) {
  if (colour) {
    header.setInt16(70, RGBA32, true);
    header.setInt16(72, 32, true);
  }
  header.setFloat32(108, HEADER, true);
  header.setInt16(252, 0, true); // no qform
  header.setInt16(254, 1, true);
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 4; column++) {
      const size = Math.hypot(...[0, 1, 2].map((axis) => affine[axis][column]));
      header.setFloat32(280 + 16 * row + 4 * column, row === column ? size || 1 : 0, true);
    }
  }
}
