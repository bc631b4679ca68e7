// Elements, without a framework.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element: `h("p", {class: "hint"}, "text", child)`. A value of `false` omits the attribute. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Shows the element or hides it. */
export function show(element, shown = true) {
  element.hidden = !shown;
}

/** A bar, filled by `share` (0 to 1). Screen readers skip it: the number is beside it as text. */
export function bar(share, kind = "") {
  const filled = h("span");
  // Set by script: the page's policy forbids style attributes.
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return h("span", { class: `bar ${kind}`, "aria-hidden": "true" }, filled);
}

/** Announces a text to screen readers. */
export function say(text) {
  byId("said").textContent = text;
}
