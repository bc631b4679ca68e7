// What the classifier is for and what it cannot do, out of its own card.

import { h } from "./dom.js";
import { percent } from "./words.js";

/** `cards`: those of all models that are served. */
export function modelCard(cards) {
  const card = cards.find((found) => found.kind === "classifier");
  const { threshold, coverage, accuracy } = card.verdict;
  return [
    h("p", {}, h("strong", {}, `${card.name}, version ${card.version}. `), card.intended_use),
    h(
      "p",
      {},
      `An answer is certain from a probability of ${percent(threshold)}. On its test photos ${percent(coverage)} `,
      `of the faces reached that, and ${percent(accuracy)} of those were named as most people named them.`,
    ),
    h("ul", {}, ...card.limits.map((limit) => h("li", {}, limit))),
    ...noticeOf(card),
  ];
}

/** What this service's operator may show to the people in the photos. */
function noticeOf({ deployment }) {
  if (!deployment) return [];
  return [h("h3", {}, "What the people in the photos should be told"), h("p", {}, deployment.notice)];
}
