/** Short words for the document. */

/**
 * The first element that a selector finds; it is there, and of the kind that is given.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} selector
 * @param {new () => T} [Kind]
 * @returns {T}
 * @throws {Error} there is none, or it is of another kind
 */
export function find(selector, Kind) {
  const found = document.querySelector(selector);
  if (!(found instanceof (Kind ?? HTMLElement))) throw new Error(`The page has no ${selector}.`);
  return /** @type {T} */ (found);
}

/**
 * All elements that a selector finds.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} selector
 * @param {new () => T} [Kind]
 * @returns {T[]}
 */
export const findAll = (selector, Kind) =>
  /** @type {T[]} */ ([...document.querySelectorAll(selector)].filter((one) => one instanceof (Kind ?? HTMLElement)));

/**
 * A button of the page.
 * @param {string} selector
 */
export const button = (selector) => find(selector, HTMLButtonElement);

/**
 * A field of the page.
 * @param {string} selector
 */
export const input = (selector) => find(selector, HTMLInputElement);

/**
 * Call when an element is clicked.
 * @param {string} selector
 * @param {() => unknown} action
 */
export const onClick = (selector, action) => find(selector).addEventListener("click", action);

/**
 * Make an element.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Partial<HTMLElementTagNameMap[Tag]>} properties
 * @param {(Node | string)[]} children
 */
export function element(tag, properties, ...children) {
  const one = Object.assign(document.createElement(tag), properties);
  one.append(...children);
  return one;
}

/**
 * A small square in the colour of a label or a model.
 * @param {string} colour
 */
export function swatch(colour) {
  const one = element("i", {});
  one.style.background = colour;
  return one;
}

/** Have the buttons of dialogs close them. */
export function wireDialogs() {
  for (const one of findAll("dialog [data-close]")) one.addEventListener("click", () => one.closest("dialog").close());
}
