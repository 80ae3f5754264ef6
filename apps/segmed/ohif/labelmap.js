// OHIF's label map: the segmentation that MONAI Label's panel works on too.

import { turnAlong, volumeViewports } from './viewports.js';

/**
 * @typedef {import('./grid.js').GridMap} GridMap
 * @typedef {import('./grid.js').CornerstoneVolume} CornerstoneVolume
 */

const ID = '1';
const MODIFIED = 'CORNERSTONE_TOOLS_SEGMENTATION_DATA_MODIFIED';
// those of Okabe and Ito (2008), as on the page, where the value 1 has the second one
// prettier-ignore
const COLOURS = [
  [204, 121, 167], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0],
];

const service = () => window.services.segmentationService;

/**
 * Its volume once it is there, else null.
 * @returns {CornerstoneVolume | null}
 */
export function volume() {
  try {
    return service().getLabelmapVolume(ID);
  } catch {
    return null; // not made yet
  }
}

/**
 * UID of the series that it belongs to.
 * @returns {string | undefined}
 */
export function series() {
  const { Labelmap } = service().getSegmentation(ID).representationData;
  const [image] = Labelmap.referencedImageIds ?? volume().referencedImageIds;
  return window.cornerstone.metaData.get('generalSeriesModule', image)?.seriesInstanceUID;
}

/**
 * Make one for the series that is shown.
 * @param {string[]} labels
 */
export async function make(labels) {
  const segments = {};
  labels.forEach((label, n) => {
    segments[n + 1] = { segmentIndex: n + 1, label, active: n === 0, locked: false };
  });
  const config = { label: 'SegMed', segments };
  await window.commandsManager.runCommand('loadSegmentationsForViewport', {
    segmentations: [{ segmentationId: ID, representation: { type: 'Labelmap' }, config }],
  });
}

/** Throw it away. */
export function discard() {
  const id = volume()?.volumeId;
  if (
    service()
      .getSegmentations()
      .some(one => one.segmentationId === ID)
  ) {
    service().remove(ID);
  }
  if (id) {
    window.cornerstone.cache.removeVolumeLoadObject(id);
  }
}

/**
 * Its voxels, a copy.
 * @returns {Uint8Array}
 */
export const read = () => volume().voxelManager.getCompleteScalarDataArray().slice();

/**
 * Names of the segments by index.
 * @returns {Object<string, string>}
 */
export const names = () =>
  Object.fromEntries(Object.values(service().getSegmentation(ID).segments).map(s => [s.segmentIndex, s.label]));

/**
 * Index of the segment of a name; makes it if it is new.
 * @param {string} name
 * @returns {number}
 */
export function indexOf(name) {
  const known = Object.entries(names());
  const found = known.find(([, label]) => label === name);
  if (found) {
    return Number(found[0]);
  }
  const taken = new Set(known.map(([index]) => Number(index)));
  const index = Array.from({ length: 255 }, (_, n) => n + 1).find(n => !taken.has(n));
  if (!index) {
    throw new Error('OHIF shows at most 255 labels at a time.');
  }
  service().addSegment(ID, { segmentIndex: index, label: name, color: colour(index) });
  return index;
}

const colour = index => [...COLOURS[index % COLOURS.length], 255];

/**
 * Have the brush paint a label.
 * @param {string} name
 */
export function activate(name) {
  const index = indexOf(name);
  for (const viewport of volumeViewports()) {
    service().setActiveSegmentation(viewport, ID);
  }
  service().setActiveSegment(ID, index);
}

/**
 * Have all views show it, and those of oblique series cut along its slices.
 * @param {GridMap} map
 */
export async function show(map) {
  for (const id of volumeViewports()) {
    if (!service().getSegmentationRepresentations(id, { segmentationId: ID }).length) {
      await service().addSegmentationRepresentation(id, { segmentationId: ID });
    }
    Object.keys(names()).forEach(index => service().setSegmentColor(id, ID, Number(index), colour(Number(index))));
    if (map.isOblique()) {
      turnAlong(id, map.directions);
    }
  }
}

/**
 * Draw what the server changed.
 * @param {object[]} changes rectangles of slices, see the server's workspace
 * @param {Object<string, number>} labels values of the server by name
 * @param {GridMap} map
 * @param {Uint8Array} known kept up to date with what is drawn
 */
export async function write(changes, labels, map, known) {
  if (!changes.length) {
    return;
  }
  const values = await Promise.all(changes.map(change => inflate(change.data)));
  const used = new Set(values.flatMap(part => [...new Set(part)]));
  const index = new Uint8Array(256);
  for (const [name, value] of Object.entries(labels)) {
    if (used.has(value)) {
      index[value] = indexOf(name);
    }
  }
  const { voxelManager, dimensions } = volume();
  const [along] = map.steps;
  const slices = new Set();
  changes.forEach(({ k, i, j }, n) => {
    let from = 0;
    for (let row = j[0]; row < j[1]; row++) {
      let to = map.index(i[0], row, k);
      for (let column = i[0]; column < i[1]; column++, to += along) {
        const value = index[values[n][from++]];
        if (known[to] !== value) {
          known[to] = value;
          voxelManager.setAtIndex(to, value);
          slices.add(Math.floor(to / (dimensions[0] * dimensions[1])));
        }
      }
    }
  });
  drawn(slices);
}

/**
 * Rub out everything, also in `known`.
 * @param {Uint8Array} known
 */
export function empty(known) {
  const { voxelManager, dimensions } = volume();
  const slices = new Set();
  read().forEach((value, at) => {
    if (value) {
      voxelManager.setAtIndex(at, 0);
      slices.add(Math.floor(at / (dimensions[0] * dimensions[1])));
    }
  });
  known.fill(0);
  drawn(slices);
}

function drawn(slices) {
  if (slices.size) {
    const detail = { segmentationId: ID, modifiedSlicesToUse: [...slices], bySegMed: true };
    window.cornerstone.triggerEvent(window.cornerstone.eventTarget, MODIFIED, detail);
  }
}

/**
 * Call back when anybody else changes voxels: the brush, or MONAI Label's panel.
 * @param {() => void} callback
 */
export function onForeignChange(callback) {
  window.cornerstone.eventTarget.addEventListener(MODIFIED, event => {
    if (event.detail.segmentationId === ID && !event.detail.bySegMed) {
      callback();
    }
  });
}

async function inflate(base64) {
  const packed = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
  return new Uint8Array(await through(packed, new DecompressionStream('deflate')));
}

/** @param {Uint8Array<ArrayBuffer>} values */
export const deflate = values => through(values, new CompressionStream('deflate'));

const through = (bytes, stream) => new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer();
