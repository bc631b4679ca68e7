// What the visitor chooses for each request: the key, the parts of each face, and the options of face detection.

import { byId, h, show } from "./dom.js";
import { INCLUDE, spaced } from "./words.js";

/** Offers what the service has. */
export function offerOptions({ asks_for_key, allows_anonymous, include }) {
  show(byId("key-field"), asks_for_key);
  const needed = allows_anonymous ? "Optional: a key may allow more." : "Required.";
  byId("key-hint").textContent = `${needed} The key is kept only until you close this page.`;
  const choices = include.map((part) =>
    h("label", {}, h("input", { type: "checkbox", name: "include", value: part }), INCLUDE[part] ?? spaced(part)),
  );
  byId("include").replaceChildren(...choices);
  // A service that answers groups only has no options.
  show(byId("choices"), choices.length > 0);
}

const numbers = () => [...byId("choices").querySelectorAll('input[type="number"]')];

/** The query of a request, without defaults. */
export function query() {
  const chosen = {};
  for (const { name, value, defaultValue } of numbers()) if (value !== defaultValue) chosen[name] = value;
  if (byId("whole").checked) chosen.detect = "false";
  const parts = [...byId("include").querySelectorAll(":checked")].map((input) => input.value);
  if (parts.length) chosen.include = parts.join(",");
  return chosen;
}

/** Sets the options of face detection; those that are not named get their defaults. */
export function setDetection({ whole = false, ...values }) {
  for (const input of numbers()) input.value = values[input.name] ?? input.defaultValue;
  byId("whole").checked = whole;
}

export function key() {
  return byId("key").value.trim();
}
