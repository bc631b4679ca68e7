// The time of each stage, from the Server-Timing header of the answer.

import { h } from "./dom.js";
import { number } from "./words.js";

const STAGES = {
  queue: "waiting",
  decode: "reading the picture",
  detect: "looking for faces",
  align: "cutting faces out",
  classify: "naming emotions",
  heatmap: "drawing heatmaps",
};

/** A stacked bar and its legend. `stages`: ms by name, `total` among them; may be empty. */
export function timingsOf(stages, roundTripMs) {
  const { total = 0, ...named } = stages;
  const spent = Object.values(named).reduce((sum, ms) => sum + ms, 0);
  const rest = Math.max(0, total - spent);
  const known = Object.entries(named).map(([stage, ms]) => [stage, STAGES[stage] ?? stage, ms]);
  const shown = [...known, ["rest", "receiving and other", rest]];
  const whole = Math.max(total, spent) || 1;
  const segments = shown.map(([stage, , ms]) => {
    const segment = h("span", { class: `stage-${stage}` });
    segment.style.width = `${(100 * ms) / whole}%`;
    return segment;
  });
  const legend = shown.map(([stage, words, ms]) =>
    h(
      "div",
      {},
      h("dt", {}, h("span", { class: `key stage-${stage}`, "aria-hidden": "true" }), words),
      h("dd", {}, `${number(ms, 1)} ms`),
    ),
  );
  const inside = total ? [h("strong", {}, `${number(total, 0)} ms`), " in the service, "] : [];
  return [
    h("p", {}, ...inside, `${number(roundTripMs, 0)} ms round trip`),
    ...(total ? [h("div", { class: "stages", "aria-hidden": "true" }, ...segments), h("dl", {}, ...legend)] : []),
  ];
}
