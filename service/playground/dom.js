// Elements, without a framework.

import { glyph, paint } from "./emotions.js";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element: `h("p", {class: "hint"}, "text", child)`. `false` omits an attribute or a child. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== false && child !== null && child !== undefined));
  return element;
}

/** A button that calls `action`. */
export function button(attributes, action, ...children) {
  const element = h("button", { type: "button", ...attributes }, ...children);
  element.addEventListener("click", action);
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

/** One bar of several emotions. `parts`: emotion and amount of each. Screen readers skip it, as above. */
export function stacked(parts) {
  const segments = parts.map(([emotion, amount]) => {
    const segment = paint(h("span", { class: emotion }), emotion);
    segment.style.flexGrow = amount;
    return segment;
  });
  return h("div", { class: "stacked", "aria-hidden": "true" }, ...segments);
}

/** What the colours and the drawn faces stand for, as list items. */
export function legendOf(emotions) {
  return emotions.map((emotion) => h("li", {}, glyph(emotion), emotion));
}

/** Writes a text where screen readers announce changes. An equal text is not read out again. */
export function announce(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Announces a text that is not shown. */
export function say(text) {
  byId("said").textContent = text;
}
