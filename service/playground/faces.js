// The list of faces: emotions, verdict, reasons, and the parts that `include` adds.

import { bar, byId, h } from "./dom.js";
import { INCLUDE, MIXTURES, measured, number, percent, reasonSentence } from "./words.js";

const OPEN_FACES = 2; // with more faces, only the chosen one is open
const INDEX = "Computed from the emotion alone. It does not measure where a person looks or what a person thinks about.";

export class FaceList {
  /** `chosen(index)` is called when a face is opened. */
  constructor(chosen) {
    this.list = byId("face-list");
    this.chosen = chosen;
  }

  clear() {
    this.list.replaceChildren();
  }

  /** `crop(face)` returns a small picture of a face, or null. `again`: the scene is that of the last answer. */
  show(faces, crop, again = false) {
    if (!again) this.clear();
    // Existing cards are reused, so that they stay open and focused.
    while (this.list.children.length > faces.length) this.list.lastChild.remove();
    while (this.list.children.length < faces.length) {
      const index = this.list.children.length;
      this.list.append(this.newCard(index, index === 0 || faces.length <= OPEN_FACES));
    }
    faces.forEach((face, index) => fill(this.list.children[index].firstChild, face, index, crop(face)));
  }

  choose(index) {
    const details = this.list.children[index]?.querySelector("details");
    if (!details) return;
    details.open = true;
    details.querySelector("summary").focus({ preventScroll: true });
    details.scrollIntoView({ block: "nearest" });
    this.chosen(index);
  }

  newCard(index, open) {
    const details = h("details", { open }, h("summary"), h("div"));
    // Not the toggle event: it also fires when a card is created open.
    details.firstChild.addEventListener("click", () => details.open || this.chosen(index));
    return h("li", {}, details);
  }
}

function fill(details, face, index, crop) {
  const [summary, body] = details.children;
  details.className = `face ${face.verdict}`;
  summary.replaceChildren(
    h("span", { class: "number" }, h("span", { class: "unseen" }, "Face "), String(index + 1)),
    crop ?? "",
    h(
      "span",
      { class: "what" },
      h("span", { class: "emotion" }, face.emotion),
      " ",
      h("span", { class: "confidence" }, percent(face.confidence)),
    ),
    h("span", { class: `verdict ${face.verdict}` }, face.verdict),
  );
  body.replaceChildren(
    ...reasons(face),
    probabilities(face.probabilities, face.emotion, face.verdict, `Probabilities of face ${index + 1}`),
    ...extras(face),
  );
}

function reasons(face) {
  if (face.verdict !== "uncertain") return [];
  // A service may send no reasons. Low confidence is then the only possible one.
  const codes = face.reasons?.length ? face.reasons : ["low_confidence"];
  const sentences = codes.map((code) => h("li", {}, reasonSentence(code)));
  return [h("div", { class: "reasons" }, h("p", {}, "Treat this as no answer:"), h("ul", {}, ...sentences))];
}

/** All probabilities as a table of bars, in the model's own order, so that faces can be compared. */
export function probabilities(shares, top, verdict, caption) {
  const rows = Object.entries(shares).map(([label, share]) =>
    h(
      "tr",
      { class: label === top ? "top" : false },
      h("th", { scope: "row" }, label),
      h("td", {}, bar(share, label === top ? verdict : "other")),
      h("td", { class: "value" }, percent(share)),
    ),
  );
  return h("table", { class: "bars" }, h("caption", { class: "unseen" }, caption), h("tbody", {}, ...rows));
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
