/** The keyboard. Keys are the user's when they write into a field. */

/**
 * @typedef {import("./tools/tool.js").Tool} Tool
 * @typedef {import("./types.js").View} View
 *
 * @typedef {object} KeyActions
 * @property {(step: number) => void} slice
 * @property {() => void} undo
 * @property {() => void} redo
 * @property {() => void} accept
 * @property {(tool: Tool) => void} tool
 * @property {(view: View) => void} view
 * @property {() => void} mask hide or show it
 * @property {() => void} invert
 * @property {() => void} reset the display
 * @property {() => void} unmeasure take the last distance away
 * @property {() => void} fit
 * @property {() => void} help
 * @property {() => void} cancel what is being drawn
 */

/**
 * What a pressed key does; null if nothing.
 * @param {Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey" | "shiftKey">} event
 * @param {Tool[]} tools
 * @param {KeyActions} actions
 * @returns {(() => void) | null}
 */
export function actionOf(event, tools, actions) {
  if (event.altKey) return null;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") return event.shiftKey ? actions.redo : actions.undo;
    return key === "y" ? actions.redo : null;
  }
  /** @type {Object<string, () => void>} */
  const plain = {
    ArrowUp: () => actions.slice(1),
    ArrowDown: () => actions.slice(-1),
    "]": () => actions.slice(1),
    "[": () => actions.slice(-1),
    PageUp: () => actions.slice(5),
    PageDown: () => actions.slice(-5),
    Enter: actions.accept,
    Escape: actions.cancel,
    Home: () => actions.slice(-Infinity),
    End: () => actions.slice(Infinity),
    Delete: actions.unmeasure,
    o: actions.mask,
    i: actions.invert,
    w: actions.reset,
    0: actions.fit,
    1: () => actions.view("axial"),
    2: () => actions.view("coronal"),
    3: () => actions.view("sagittal"),
    4: () => actions.view("multi"),
    "?": actions.help,
    h: actions.help,
  };
  const tool = tools.find((one) => one.key === key);
  return tool ? () => actions.tool(tool) : (plain[key] ?? null);
}

/**
 * Hear the keys of the document.
 * @param {Tool[]} tools
 * @param {KeyActions} actions
 */
export function listen(tools, actions) {
  document.addEventListener("keydown", (event) => {
    const target = /** @type {Element} */ (event.target);
    const writes = target.closest("input:not([type=range], [type=checkbox]), select, textarea, dialog");
    const pressed = target.closest("button") && [" ", "Enter"].includes(event.key);
    const action = writes || pressed ? null : actionOf(event, tools, actions);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/**
 * Rows of the help: keys and what they do.
 * @param {Tool[]} tools
 */
export const helpRows = (tools) => [
  ["↑ ↓ or [ ], Home, End", "next and previous slice, first and last; the wheel does the same"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["Enter", "accept the object: the next prompt begins another"],
  ...tools.map(({ key, title }) => [key.toUpperCase(), title.toLowerCase()]),
  ["Wheel while drawing", "a box over several slices; its handles can be dragged in all views"],
  ["Delete", "take the last measured distance away"],
  ["O, I, W", "hide the mask, invert black and white, reset the display"],
  ["Shift + arrows, Space", "a cursor on the image without a mouse; Space presses and releases the tool there"],
  ["1 2 3 4", "axial, coronal, sagittal, all three"],
  ["Right button", "drag: brightness (up, down) and contrast (left, right)"],
  ["Shift + drag, Ctrl + wheel, 0", "move, zoom, fit"],
  ["Fingers", "one uses the tool, held still: brightness; two: slices and zoom"],
  ["Esc", "give up what is being drawn"],
];
