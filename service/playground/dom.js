// Elements, without a framework.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element: `h("p", {class: "hint"}, "text", child)`. A value of `false` leaves an attribute out. */
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

/** A bar of which `share` (0 to 1) is filled. The number stands beside it as text, so readers may skip it. */
export function bar(share, kind = "") {
  const filled = h("span");
  // By script, because the page's policy forbids style attributes.
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return h("span", { class: `bar ${kind}`, "aria-hidden": "true" }, filled);
}

/** Says something to those who hear the page, and see no change. */
export function say(text) {
  byId("said").textContent = text;
}
