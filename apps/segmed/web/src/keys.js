/** The keyboard. Keys are the user's when they write into a field. */
import { TOOLS } from "./tools.js";

/** @param {object} does slice(step), undo(), redo(), accept(), tool(name), view(name), mask(), fit(), help(), cancel() */
export function listen(does) {
  const plain = {
    ArrowUp: () => does.slice(1),
    ArrowDown: () => does.slice(-1),
    "]": () => does.slice(1),
    "[": () => does.slice(-1),
    PageUp: () => does.slice(5),
    PageDown: () => does.slice(-5),
    Enter: does.accept,
    Escape: does.cancel,
    o: does.mask,
    0: does.fit,
    1: () => does.view("axial"),
    2: () => does.view("coronal"),
    3: () => does.view("sagittal"),
    4: () => does.view("multi"),
    "?": does.help,
    h: does.help,
  };
  for (const [name, [key]] of Object.entries(TOOLS)) plain[key] = () => does.tool(name);
  const withControl = { z: (event) => (event.shiftKey ? does.redo() : does.undo()), y: does.redo };

  document.addEventListener("keydown", (event) => {
    const { target } = event;
    const writes = target.closest("input:not([type=range], [type=checkbox]), select, textarea, dialog");
    const pressed = target.closest("button") && [" ", "Enter"].includes(event.key);
    if (writes || pressed || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = event.ctrlKey || event.metaKey ? withControl[key] : plain[key];
    if (!action) return;
    event.preventDefault();
    action(event);
  });
}

/** Rows of the help: keys and what they do. */
export const HELP = [
  ["↑ ↓ or [ ]", "next and previous slice; the wheel does the same"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["Enter", "accept the object: the next prompt begins another"],
  ...Object.values(TOOLS).map(([key, words]) => [key.toUpperCase(), words.toLowerCase()]),
  ["O", "hide and show the mask"],
  ["1 2 3 4", "axial, coronal, sagittal, all three"],
  ["Right button", "drag: brightness (up, down) and contrast (left, right)"],
  ["Shift + drag, Ctrl + wheel, 0", "move, zoom, fit"],
  ["Esc", "give up what is being drawn"],
];
