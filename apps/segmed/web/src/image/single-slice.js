/**
 * NiiVue does not bring images of one slice into its order, and takes RGB of that kind as RGBA only. They are turned
 * here: i to the right and j downwards as stored, unless an axial slice says otherwise.
 */
import { Grid } from "./grid.js";

const HEADER = 352; // bytes of a NIfTI header
const RGB24 = 128; // types of NIfTI
const RGBA32 = 2304;
// places in the header
const DATATYPE = 70;
const BITS = 72;
const DATA_OFFSET = 108;
const QFORM_CODE = 252;
const SFORM_CODE = 254;
const SFORM = 280;

/**
 * A NIfTI file in shown order, and how it came about.
 * @param {ArrayBuffer} buffer NIfTI file as stored
 * @param {number[]} shape stored size; the third is 1
 * @param {number[][]} affine stored voxel to right-anterior-superior mm
 */
export function turnSlice(buffer, shape, affine) {
  /** @type {(row: number, column: number) => number} */
  const length = (row, column) => Math.abs(affine[row][column]);
  const axial = [0, 1].every((axis) => [0, 1, 2].every((row) => length(row, axis) <= length(axis, axis)));
  // the screen shows x to the left and y upwards
  const right = axial && affine[0][0] > 0 ? 1 : -1;
  const up = axial && affine[1][1] > 0 ? 1 : -1;
  const grid = new Grid(shape, [right, up * 2, 3]);
  const old = new DataView(buffer);
  const colour = old.getInt16(DATATYPE, true) === RGB24;
  const bytes = old.getInt16(BITS, true) / 8;
  const width = colour ? 4 : bytes;
  const [columns, rows] = shape;
  const turned = new Uint8Array(HEADER + grid.size * width);
  turned.set(new Uint8Array(buffer, 0, HEADER - 4));
  const source = new Uint8Array(buffer, old.getFloat32(DATA_OFFSET, true));
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

/**
 * @param {DataView} header
 * @param {boolean} colour
 * @param {number[][]} affine
 */
function writeHeader(header, colour, affine) {
  if (colour) {
    header.setInt16(DATATYPE, RGBA32, true);
    header.setInt16(BITS, 32, true);
  }
  header.setFloat32(DATA_OFFSET, HEADER, true);
  header.setInt16(QFORM_CODE, 0, true);
  header.setInt16(SFORM_CODE, 1, true);
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 4; column++) {
      const size = Math.hypot(...[0, 1, 2].map((axis) => affine[axis][column]));
      header.setFloat32(SFORM + 16 * row + 4 * column, row === column ? size || 1 : 0, true);
    }
  }
}
