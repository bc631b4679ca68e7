// The list of faces: emotions, verdict, reasons, and the parts that `include` adds.

import { bar, byId, h } from "./dom.js";
import { glyph, paint } from "./emotions.js";
import { INCLUDE, MIXTURES, agreementSentence, measured, number, percent, reasonSentence, spaced } from "./words.js";

const OPEN_FACES = 2; // with more faces, only the first one is open
const INDEX = "Computed from the emotion alone. It does not measure where a person looks or what a person thinks about.";

export const NAMED_FACES = 4; // with more faces, long labels would cover the photo
export const UNCERTAIN = "uncertain";

/** The emotion of a certain face, or `uncertain`, which is no answer. */
export const kindOf = (face) => (face.verdict === UNCERTAIN ? UNCERTAIN : face.emotion);

const area = ({ box }) => box.width * box.height;
const sure = (face) => Number(face.verdict !== UNCERTAIN);
const ORDERS = {
  sure: (one, other) => sure(other) - sure(one) || area(other) - area(one),
  confidence: (one, other) => other.confidence - one.confidence,
  emotion: (one, other) => one.emotion.localeCompare(other.emotion) || ORDERS.sure(one, other),
  number: (one, other) => one.number - other.number,
};

export class FaceList {
  threshold = null; // of the model; null if unknown

  /** `chosen(number)` is called when a face is opened. */
  constructor(chosen) {
    this.list = byId("face-list");
    this.chosen = chosen;
    this.cards = new Map(); // by the number of the face
  }

  clear() {
    this.cards.clear();
    this.list.replaceChildren();
  }

  /**
   * `faces`: with their numbers. `crop(face)` returns a small picture of a face, or null. `kind`: only these faces.
   * Existing cards are reused, so that they stay open and focused.
   */
  show(faces, { order, kind = null, crop }) {
    const shown = faces.filter((face) => !kind || kindOf(face) === kind).sort(ORDERS[order]);
    const numbers = new Set(faces.map((face) => face.number));
    for (const number of this.cards.keys()) if (!numbers.has(number)) this.cards.delete(number);
    const cards = shown.map((face, place) => {
      if (!this.cards.has(face.number)) this.cards.set(face.number, this.#card(face.number));
      const card = this.cards.get(face.number);
      if (!card.filled) card.firstChild.open = place === 0 || faces.length <= OPEN_FACES;
      card.filled = true;
      this.#fill(card.firstChild, face, crop(face));
      return card;
    });
    // Only when the order changes: a card that moves loses the focus.
    const present = this.list.children;
    const same = cards.length === present.length && cards.every((card, at) => card === present[at]);
    if (!same) this.list.replaceChildren(...cards);
    return shown[0]?.number;
  }

  choose(number) {
    const details = this.cards.get(number)?.firstChild;
    if (!details?.isConnected) return;
    details.open = true;
    details.querySelector("summary").focus({ preventScroll: true });
    details.scrollIntoView({ block: "nearest" });
    this.chosen(number);
  }

  #card(number) {
    const details = h("details", {}, h("summary"), h("div"));
    // Not the toggle event: it also fires when a card is created open.
    details.firstChild.addEventListener("click", () => details.open || this.chosen(number));
    return h("li", {}, details);
  }

  #fill(details, face, crop) {
    const [summary, body] = details.children;
    details.className = `face ${face.verdict}`;
    paint(details, face.emotion);
    summary.replaceChildren(
      h("span", { class: "number" }, h("span", { class: "unseen" }, "Face "), String(face.number)),
      crop ?? "",
      h(
        "span",
        { class: "what" },
        h("span", { class: "emotion" }, glyph(face.emotion), face.emotion),
        " ",
        h("span", { class: "confidence" }, percent(face.confidence, this.threshold)),
        marked(face.confidence, face.verdict, this.threshold),
        why(face, this.threshold),
      ),
      h("span", { class: `verdict ${face.verdict}` }, face.verdict),
    );
    const caption = `Probabilities of face ${face.number}`;
    body.replaceChildren(
      ...this.#reasons(face),
      probabilities(face.probabilities, face.emotion, face.verdict, caption, this.threshold),
      ...(face.agreement === undefined ? [] : [hint(agreementSentence(face))]),
      ...extras(face),
    );
  }

  #reasons(face) {
    if (face.verdict !== UNCERTAIN) return [];
    const sentences = reasonsOf(face).map((code) => h("li", {}, reasonSentence(code)));
    const high = this.threshold !== null && face.confidence >= this.threshold;
    const lead = `Treat this as no answer${high ? ", although the probability is high enough" : ""}:`;
    return [h("div", { class: "reasons" }, h("p", {}, lead), h("ul", {}, ...sentences))];
  }
}

// A service may send no reasons. Low confidence is then the only possible one.
const reasonsOf = ({ reasons }) => (reasons?.length ? reasons : ["low_confidence"]);

/** Why a face is uncertain although its probability is high enough, in two words; else nothing. */
function why(face, threshold) {
  if (face.verdict !== UNCERTAIN || threshold === null || face.confidence < threshold) return false;
  return h("span", { class: "why" }, spaced(reasonsOf(face)[0]));
}

/** A bar with a line at the threshold, if there is one. */
function marked(share, kind, threshold) {
  const shown = bar(share, kind);
  if (threshold === null) return shown;
  const line = h("span", { class: "threshold" });
  line.style.left = `${100 * threshold}%`;
  shown.append(line);
  return shown;
}

/**
 * All probabilities as a table of bars, in the model's own order, so that faces can be compared. A line marks the
 * threshold, if there is one.
 */
export function probabilities(shares, top, verdict, caption, threshold = null) {
  const rows = Object.entries(shares).map(([label, share]) => {
    const row = h(
      "tr",
      { class: label === top ? "top" : false },
      h("th", { scope: "row" }, glyph(label), label),
      h("td", {}, marked(share, label === top ? verdict : "other", threshold)),
      h("td", { class: "value" }, percent(share, label === top ? threshold : null)),
    );
    return paint(row, label);
  });
  const note = `The line marks ${percent(threshold ?? 0)}: an answer with less is never certain.`;
  return h(
    "table",
    { class: "bars" },
    h("caption", { class: "unseen" }, caption),
    h("tbody", {}, ...rows),
    threshold !== null && h("tfoot", {}, h("tr", {}, h("td", { colspan: 3, class: "hint" }, note))),
  );
}

function extras({ quality, experts, engagement, heatmap }) {
  return [
    quality && part("quality", definitions(Object.entries(quality).map(([name, value]) => measured(name, value)))),
    experts && part("experts", hint("Each mixture has four experts. Two of them are used for a face."), ...mixtures(experts)),
    engagement && part("engagement", h("p", {}, `${number(engagement.index, 2)} of at most 0.90`), hint(INDEX)),
    heatmap && part("heatmap", hint(mapWords(heatmap))),
  ].filter(Boolean);
}

function hint(text) {
  return h("p", { class: "hint" }, text);
}

function mapWords({ largest_fall }) {
  const fall = `Covering one patch lowers the probability by up to ${percent(largest_fall)}.`;
  return `Colours over the photo show where covering the face weakens the answer. ${fall}`;
}

function part(name, ...content) {
  return h("section", { class: "part" }, h("h3", {}, INCLUDE[name]), ...content);
}

function definitions(pairs) {
  return h("dl", {}, ...pairs.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
}

function mixtures(experts) {
  return Object.entries(experts).map(([name, weights]) => {
    const cells = weights.map((weight, index) =>
      h(
        "li",
        { class: weight ? "on" : false },
        h("span", { class: "unseen" }, `Expert ${index + 1}: `),
        bar(weight, "expert"),
        h("span", { class: "value" }, weight ? percent(weight) : "–"),
      ),
    );
    return h("div", { class: "mixture" }, h("p", {}, MIXTURES[name] ?? name), h("ol", {}, ...cells));
  });
}
