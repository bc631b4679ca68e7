// What an answer says as a whole: one sentence, how many of what, and the group of a service in group mode.

import { button, h, stacked } from "./dom.js";
import { glyph } from "./emotions.js";
import { UNCERTAIN, kindOf, probabilities } from "./faces.js";
import { counted } from "./words.js";

/** What was found, in one sentence. */
export function statusOf({ faces, faces_found, group }) {
  if (group?.probabilities) return `${counted(group.face_count, "face")} together.`;
  if (group) return `Fewer than ${group.min_faces} faces were found.`;
  if (!faces.length) return "No face was found. Faces that are very small, covered or turned away may be missed.";
  const largest = faces.length === 1 ? "largest" : `largest ${faces.length}`;
  const found = `${counted(faces_found, "face")} found${faces_found > faces.length ? `, the ${largest} shown` : ""}`;
  const uncertain = faces.filter((face) => face.verdict === UNCERTAIN).length;
  return uncertain ? `${found}, ${uncertain} uncertain.` : `${found}.`;
}

/** How many faces are of each kind: the most frequent first, uncertain last. */
function countsOf(faces) {
  const counts = new Map();
  for (const face of faces) counts.set(kindOf(face), (counts.get(kindOf(face)) ?? 0) + 1);
  const rank = ([kind, count]) => (kind === UNCERTAIN ? -1 : count);
  return [...counts].sort((one, other) => rank(other) - rank(one));
}

/** A bar of the counts, and a button for each kind. `choose(kind)` filters the faces. */
export function summaryOf(faces, chosen, choose) {
  const counts = countsOf(faces);
  const buttons = counts.map(([kind, count]) =>
    button(
      { class: "count", "aria-pressed": String(kind === chosen) },
      () => choose(kind === chosen ? null : kind),
      kind === UNCERTAIN ? h("span", { class: "swatch uncertain", "aria-hidden": "true" }) : glyph(kind),
      `${kind} `,
      h("strong", {}, String(count)),
    ),
  );
  return [
    stacked(counts),
    h("div", { class: "counts", role: "group", "aria-label": "Show only" }, ...buttons),
  ];
}

/** How many of what in all photos, as text. */
export function totalOf(answers) {
  const faces = answers.flatMap((answer) => answer.faces ?? []);
  const counts = countsOf(faces).map(([kind, count]) => `${count} ${kind}`);
  const photos = counted(answers.length, "photo");
  return `${photos}, ${counted(faces.length, "face")}${counts.length ? `: ${counts.join(", ")}` : ""}.`;
}

/** The group and a note, from a service that answers groups only. */
export function groupOf(group) {
  if (!group) return [];
  const words = `This service answers for groups of at least ${group.min_faces} faces, and never for a single face.`;
  const note = h("p", { class: "hint" }, words);
  if (!group.probabilities) return [note];
  const [[top]] = Object.entries(group.probabilities).sort(([, one], [, other]) => other - one);
  return [probabilities(group.probabilities, top, "certain", `Mean probabilities of ${group.face_count} faces`), note];
}
