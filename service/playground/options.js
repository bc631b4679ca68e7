// What the visitor chooses for each request: the key, the parts of each face, the prior, and the options of face
// detection.

import { byId, h, show } from "./dom.js";
import { INCLUDE, spaced } from "./words.js";

const OWN = "own";
const choice = byId("prior");
const shares = byId("shares");
let defaultPrior = "";

choice.addEventListener("change", showShares);

/** Offers what the service has. */
export function offerOptions({ asks_for_key, allows_anonymous, include, prior }) {
  show(byId("key-field"), asks_for_key);
  const needed = allows_anonymous ? "Optional: a key may allow more." : "Required.";
  byId("key-hint").textContent = `${needed} The key is kept only until you close this page.`;
  const choices = include.map((part) =>
    h("label", {}, h("input", { type: "checkbox", name: "include", value: part }), INCLUDE[part] ?? spaced(part)),
  );
  byId("include").replaceChildren(...choices);
  defaultPrior = prior;
  resetPrior();
  // A service that answers groups only has no options.
  show(byId("choices"), choices.length > 0);
}

/** Selects the prior of the service. */
export function resetPrior() {
  choice.value = defaultPrior;
  // Shares by name are no choice of the list.
  if (choice.selectedIndex < 0) choice.value = OWN;
  shares.value = choice.value === OWN ? defaultPrior : "";
  showShares();
}

function showShares() {
  show(byId("shares-field"), choice.value === OWN);
}

const numbers = () => [...byId("choices").querySelectorAll('input[type="number"]')];

/** The query of a request, without defaults. */
export function query() {
  const chosen = {};
  for (const { name, value, defaultValue } of numbers()) if (value !== defaultValue) chosen[name] = value;
  if (byId("whole").checked) chosen.detect = "false";
  const parts = [...byId("include").querySelectorAll(":checked")].map((input) => input.value);
  const assumed = choice.value === OWN ? shares.value.trim() : choice.value;
  if (assumed && assumed !== defaultPrior) chosen.prior = assumed;
  if (parts.length) chosen.include = parts.join(",");
  return chosen;
}

/** The query of a stream or a recording: no heatmap, and always detection. */
export function framesQuery() {
  const { detect, include = "", ...options } = query();
  const parts = include.split(",").filter((part) => part && part !== "heatmap");
  return parts.length ? { ...options, include: parts.join(",") } : options;
}

/** Sets the options of face detection; those that are not named get their defaults. */
export function setDetection({ whole = false, ...values }) {
  for (const input of numbers()) input.value = values[input.name] ?? input.defaultValue;
  byId("whole").checked = whole;
}

export function key() {
  return byId("key").value.trim();
}
