/** A label's colour and the pattern of its outline as a small picture, so that labels differ by more than colour. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} colour
 * @param {number[]} dash lengths of dashes and gaps
 */
export function patternSwatch(colour, dash) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 22 14");
  picture.setAttribute("class", "swatch");
  picture.setAttribute("aria-hidden", "true");
  const area = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ x: 1.5, y: 1.5, width: 19, height: 11, rx: 2 })) {
    area.setAttribute(name, String(value));
  }
  area.setAttribute("fill", colour);
  area.setAttribute("fill-opacity", "0.45");
  area.setAttribute("stroke", colour);
  area.setAttribute("stroke-width", "2");
  area.setAttribute("stroke-dasharray", dash.join(" "));
  picture.append(area);
  return picture;
}
