// What the classifier is for and what it cannot do, from its model card.

import { h } from "./dom.js";
import { percent } from "./words.js";

/** `cards`: the cards of all served models. */
export function modelCard(cards) {
  const card = cards.find((found) => found.kind === "classifier");
  const { threshold, coverage, accuracy } = card.verdict;
  return [
    h("p", {}, h("strong", {}, `${card.name}, version ${card.version}. `), card.intended_use),
    h(
      "p",
      {},
      `An answer is certain if its probability is at least ${percent(threshold)}. On the test photos, `,
      `${percent(coverage)} of the faces were certain. For ${percent(accuracy)} of these, most people chose the same emotion.`,
    ),
    h("ul", {}, ...card.limits.map((limit) => h("li", {}, limit))),
    ...noticeOf(card),
  ];
}

/** The notice of the operator for the people in the photos. */
function noticeOf({ deployment }) {
  if (!deployment) return [];
  return [h("h3", {}, "What the people in the photos should be told"), h("p", {}, deployment.notice)];
}
