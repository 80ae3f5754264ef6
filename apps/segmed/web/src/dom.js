/** Short words for the document. */
export const find = (selector) => document.querySelector(selector);

export function element(tag, properties, ...children) {
  const one = Object.assign(document.createElement(tag), properties);
  one.append(...children);
  return one;
}

const STAYS = { note: 6_000, warning: 12_000, error: 20_000 };

/** A sentence for the user, over the image; `kind` is note, warning or error. */
export function say(text, kind = "note") {
  const same = [...find("#messages").children].find((one) => one.dataset.text === text);
  same?.remove();
  const close = element("button", { type: "button", title: "Close" }, "×");
  const message = element("div", { className: `message ${kind}` }, element("span", {}, text), close);
  message.dataset.text = text;
  message.setAttribute("role", kind === "error" ? "alert" : "status");
  close.addEventListener("click", () => message.remove());
  find("#messages").append(message);
  while (find("#messages").children.length > 4) find("#messages").firstChild.remove();
  setTimeout(() => message.remove(), STAYS[kind]);
}
