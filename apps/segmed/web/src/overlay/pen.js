/** Strokes that stand out on dark and on bright, and the colours of prompts. */

export const COLOURS = { positive: "#5ee39a", negative: "#ff7b72", region: "#ffe08a" };
const CROSSED_FROM = 5; // pixels; smaller dots hold no sign

/**
 * Stroke the present path.
 * @param {CanvasRenderingContext2D} pen
 * @param {string} colour
 * @param {number} width in pixels
 */
export function line(pen, colour, width) {
  pen.lineWidth = width + 2;
  pen.strokeStyle = "rgb(0 0 0 / 55%)";
  pen.stroke();
  pen.lineWidth = width;
  pen.strokeStyle = colour;
  pen.stroke();
}

/**
 * The mark of a click.
 * @param {CanvasRenderingContext2D} pen
 * @param {[number, number]} place
 * @param {number} radius in pixels
 * @param {boolean} positive whether it is a plus or a minus
 */
export function dot(pen, [x, y], radius, positive) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fillStyle = positive ? COLOURS.positive : COLOURS.negative;
  pen.fill();
  if (radius < CROSSED_FROM) return;
  line(pen, "#fff", 1);
  pen.beginPath();
  pen.moveTo(x - 3, y);
  pen.lineTo(x + 3, y);
  if (positive) {
    pen.moveTo(x, y - 3);
    pen.lineTo(x, y + 3);
  }
  pen.lineWidth = 1.5;
  pen.strokeStyle = "#10261a";
  pen.stroke();
}

/**
 * A letter or sign in white on a dark disc.
 * @param {CanvasRenderingContext2D} pen
 * @param {string} text
 * @param {[number, number]} place its middle
 */
export function sign(pen, text, [x, y]) {
  pen.beginPath();
  pen.arc(x, y, 8, 0, 2 * Math.PI);
  pen.fillStyle = "rgb(0 0 0 / 70%)";
  pen.fill();
  pen.font = "bold 12px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.fillStyle = "#fff";
  pen.fillText(text, x, y + 4);
  pen.textAlign = "start";
}
