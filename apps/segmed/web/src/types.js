/**
 * Names of what travels between the parts of the page and the server. Voxels are stored order (i, j, k) unless a name
 * says `shown`; ranges [from, to) are half-open where a comment says so.
 *
 * @typedef {number[]} Voxel stored [i, j, k]
 * @typedef {[number, number]} Range
 * @typedef {"axial" | "coronal" | "sagittal"} Plane
 * @typedef {Plane | "multi"} View
 *
 * @typedef {object} ImageEntry a row of GET api/images
 * @property {string} id
 * @property {string} [name]
 * @property {string} [modality]
 * @property {string} [date]
 * @property {string} [patient] name; "" where the server hides it
 * @property {string} [patient_id]
 * @property {number} [slices] number of images of a series; 0 if not known
 * @property {string} [labelled_by] whose the final label is
 * @property {boolean} [labelled] whether it has a final label
 * @property {boolean} [unsaved] whether this user has work on it that is not saved
 *
 * @typedef {object} ImageMeta the answer to GET api/images/{id}
 * @property {string} id
 * @property {string} name
 * @property {number[]} shape size along i, j, k
 * @property {number[][]} affine stored voxel to right-anterior-superior mm
 * @property {Range} window values shown black and white at first
 * @property {Object<Plane, number>} planes stored axis across each plane
 * @property {string} note on sizes that the image does not state and that were assumed; mostly ""
 * @property {string} [series] SeriesInstanceUID, where the image is a DICOM series
 *
 * @typedef {object} Model
 * @property {string} name
 * @property {string} description
 * @property {"prompt" | "automatic"} type
 * @property {2 | 3} dimension of the images that it segments at once
 *
 * @typedef {object} LeftOut files that are no image
 * @property {string} name
 * @property {string} reason
 * @property {number} count
 *
 * @typedef {object} ServerState the answer to GET api/state
 * @property {string} version
 * @property {string} [user] who has logged in
 * @property {string} [warning]
 * @property {Model[]} models
 * @property {string[]} labels names that the server was started with
 * @property {{state: string, message: string, left_out?: LeftOut[]}} studies
 *
 * @typedef {object} Scribble
 * @property {number} k slice of its plane
 * @property {boolean} foreground
 * @property {number[][]} points along the stroke, on the two axes of its plane in the order i, j, k
 * @property {number} width in the smaller voxel edge
 *
 * @typedef {object} DrawnLine a scribble, or a lasso if it is closed
 * @property {number} axis stored axis across its slice
 * @property {number} k slice along that axis
 * @property {number[][]} points on the two other axes
 * @property {boolean} foreground
 * @property {boolean} closed
 *
 * @typedef {object} Prompt
 * @property {string} [label] of the open object
 * @property {number[]} [box] [i0, i1, j0, j1, k0, k1], both ends inside
 * @property {Voxel[]} [foreground]
 * @property {Voxel[]} [background]
 * @property {Scribble[]} [scribbles]
 * @property {{k: number, points: number[][]}} [lasso]
 * @property {DrawnLine[]} [lines] scribbles and lasso of the open object, to be shown
 * @property {Plane} [plane] in which it was drawn; the plane of the stored slices if it is missing
 * @property {number} [axis] stored axis across the plane of the open object, if it is not 2
 *
 * @typedef {object} LabelRectangle label values on a rectangle of one slice
 * @property {number} k slice
 * @property {number[]} i half-open range of columns
 * @property {number[]} j half-open range of rows
 * @property {Uint8Array} values rows of constant j
 * @property {number} [axis] stored axis across the slice, if it is not 2; i and j are ranges on the two others
 *
 * @typedef {object} PackedRectangle a LabelRectangle as it travels
 * @property {number} k
 * @property {number[]} i
 * @property {number[]} j
 * @property {string} data base64 of the deflated values
 * @property {number} [axis]
 *
 * @typedef {object} WorkState what the server keeps of a user's work on an image
 * @property {Object<string, number>} labels values by name
 * @property {Object<string, string>} colours as #rrggbb, by name, of labels that have one of their own
 * @property {boolean} can_undo
 * @property {boolean} can_redo
 * @property {Prompt} prompt of the open object
 * @property {boolean} unsaved
 * @property {number} [revision]
 * @property {string} [boot]
 *
 * @typedef {{model: string, label: string, overwrite: boolean, locked?: string[], refine?: boolean} & Prompt} PromptRequest
 *
 * @typedef {object} WorkActions
 * @property {() => string} client who works
 * @property {() => void} changed the state is another one
 * @property {(words: string) => void} busy what is being done; "" at the end
 * @property {(progress: import("./server/stream.js").Progress | null) => void} progress of a long request; null at
 *   its end
 * @property {(text: string) => void} warn
 * @property {(error: import("./server/requests.js").Failure) => void} fail
 *
 * @typedef {object} Saved the answer to POST api/images/{id}/save
 * @property {Object<string, number>} voxels by label name
 * @property {string} [note]
 * @property {string} [seg] where the DICOM SEG went
 * @property {string} [differs] a sentence on what was saved and shown differently
 */
export {};
