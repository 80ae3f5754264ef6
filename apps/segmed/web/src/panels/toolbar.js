/** The buttons of the tools, and the size of brush and scribbles. */
import { element, find, findAll, input, onClick } from "./dom.js";
import { helpRows } from "../keyboard.js";

export class ToolBar {
  /** @param {import("../tools/pointer.js").Pointer} pointer */
  constructor(pointer) {
    this.pointer = pointer;
    for (const tool of pointer.tools) {
      const one = find(`[data-tool="${tool.name}"]`);
      one.title = `${tool.title} (${tool.key.toUpperCase()})`;
      one.addEventListener("click", () => this.choose(tool));
    }
    const size = input("#size");
    size.addEventListener("input", () => (pointer.settings.size = Number(size.value)));
    find("#keys tbody").replaceChildren(
      ...helpRows(pointer.tools).map(([keys, words]) =>
        element("tr", {}, element("th", {}, keys), element("td", {}, words)),
      ),
    );
    onClick("#help", showHelp);
    this.choose(pointer.tools.find((tool) => tool.name === "box"));
  }

  /** @param {import("../tools/tool.js").Tool} tool */
  choose(tool) {
    this.pointer.choose(tool);
    for (const one of findAll("[data-tool]")) one.ariaPressed = String(one.dataset.tool === tool.name);
    input("#size").disabled = !tool.hasSize;
  }
}

/** Keys and mouse. */
export const showHelp = () => find("#keys", HTMLDialogElement).showModal();
