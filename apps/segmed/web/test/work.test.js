import assert from "node:assert/strict";
import { test } from "node:test";
import { colour, lookupTable } from "../src/image/colours.js";
import { describe } from "../src/panels/description.js";
import { matches } from "../src/panels/studies.js";
import { fileName } from "../src/server/requests.js";
import { difference, rectangles, valueOf, voxelsByName } from "../src/work/label-edits.js";

test("strokes are sent as the smallest rectangle of each slice", () => {
  const voxels = [[3, 5, 1], [1, 6, 1], [9, 9, 4]]; // prettier-ignore
  assert.deepEqual(rectangles(voxels), [
    { k: 1, i: [1, 4], j: [5, 7] },
    { k: 4, i: [9, 10], j: [9, 10] },
  ]);
  assert.deepEqual(rectangles([]), []);
});

test("a new label gets the next free value", () => {
  assert.equal(valueOf({ liver: 1, spleen: 3 }, "spleen"), 3);
  assert.equal(valueOf({ liver: 1, spleen: 3 }, "kidney"), 2);
  assert.equal(valueOf({}, "kidney"), 1);
});

test("what was saved is compared with what was shown", () => {
  const shown = voxelsByName({ liver: 1, spleen: 2, empty: 3 }, [50, 10, 20, 0]);
  assert.deepEqual(shown, { liver: 10, spleen: 20 });
  assert.equal(difference(shown, { spleen: 20, liver: 10 }), "");
  const told = difference(shown, { liver: 9, kidney: 1 });
  for (const part of ["liver: 9 voxels saved, 10 shown", "spleen: 0 voxels saved, 20", "kidney: 1 voxels saved, 0"]) {
    assert.ok(told.includes(part), part);
  }
});

test("every label value has a colour, and the background has none", () => {
  const { lut } = lookupTable();
  assert.deepEqual([...lut.subarray(0, 4)], [0, 0, 0, 0]);
  assert.ok(Array.from({ length: 255 }, (_, n) => lut[4 * (n + 1) + 3]).every((opacity) => opacity === 255));
  assert.equal(new Set(Array.from({ length: 40 }, (_, n) => String(colour(n + 1)))).size, 40);
});

test("files are named as the server says, in any alphabet", () => {
  assert.equal(fileName(`attachment; filename="liver.nii.gz"`), "liver.nii.gz");
  assert.equal(fileName("attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.nrrd"), "größe.nrrd");
  assert.equal(fileName(null), "segmentation");
});

test("images are found by all words, in any part", () => {
  const image = { id: "1.2.3", name: "Abdomen native", modality: "CT", date: "2020-01-02" };
  assert.ok(matches(image, "ct abd"));
  assert.ok(matches(image, ""));
  assert.ok(!matches(image, "mr abd"));
});

test("the image is told in words", () => {
  const planes = [{ plane: "axial", index: 11, count: 40 }];
  assert.equal(describe(planes, [-160, 240.00001]), "axial slice 12 of 40; black at -160, white at 240");
  assert.equal(describe([{ plane: "axial", index: 0, count: 1 }], [0, 255]), "axial; black at 0, white at 255");
});
