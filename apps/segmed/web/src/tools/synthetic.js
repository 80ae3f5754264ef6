/** Fingers and keys use the tools as a mouse does: by events of a pointer that the image hears. */

/**
 * @param {HTMLCanvasElement} canvas that hears the mouse
 * @param {"pointerdown" | "pointermove" | "pointerup" | "pointercancel"} type
 * @param {{x: number, y: number, button?: number, pointerId?: number}} what CSS pixels of the window
 */
export function sendPointer(canvas, type, { x, y, button = 0, pointerId = 1 }) {
  canvas.dispatchEvent(
    new PointerEvent(type, { clientX: x, clientY: y, button, pointerId, pointerType: "mouse", cancelable: true }),
  );
}
