import assert from "node:assert/strict";
import { test } from "node:test";
import { colour } from "../src/image/colours.js";
import { LabelStyle } from "../src/image/label-style.js";
import { describe } from "../src/panels/description.js";
import { matches } from "../src/panels/studies.js";
import { fileName } from "../src/server/requests.js";
import { labelFacts, nextObject, voxelVolume } from "../src/work/label-facts.js";
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
  const { lut } = new LabelStyle().lookupTable();
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

test("hidden labels are not drawn, and stored colours are", () => {
  const style = new LabelStyle();
  assert.ok(style.takeColours({ liver: 2, spleen: 3 }, { liver: "#0072b2", gone: "#ffffff" }));
  assert.ok(!style.takeColours({ liver: 2, spleen: 3 }, { liver: "#0072b2" }));
  assert.equal(style.hex(2), "#0072b2");
  assert.equal(style.hex(1), "#e69f00");
  style.hidden.add(2);
  style.locked.add(3);
  assert.equal(style.lookupTable().lut[4 * 2 + 3], 0);
  style.takeColours({ spleen: 3 }, {});
  assert.deepEqual([[...style.hidden], [...style.locked]], [[], [3]]);
  assert.notDeepEqual(style.dash(1), style.dash(2));
});

test("labels are told with their volumes, whatever the axes are", () => {
  const affine = [[0, 0, 3, 5], [0.5, 0, 0, 1], [0, -2, 0, 7]]; // prettier-ignore
  assert.equal(voxelVolume(affine), 3);
  const facts = labelFacts({ spleen: 2, liver: 1 }, [9, 4000, 0], affine);
  assert.deepEqual(facts, [
    { name: "liver", value: 1, voxels: 4000, ml: 12 },
    { name: "spleen", value: 2, voxels: 0, ml: 0 },
  ]);
  assert.ok(Number.isNaN(labelFacts({ liver: 1 }, [9, 4000], affine, true)[0].ml));
});

test("objects of one kind are numbered, and gaps are filled", () => {
  assert.equal(nextObject({}, "cell"), "cell 1");
  assert.equal(nextObject({ cell: 1, "cell 1": 2, "cell 3": 3 }, "cell 3"), "cell 2");
  assert.equal(nextObject({ "L 1": 1 }, "L 1"), "L 2");
});
