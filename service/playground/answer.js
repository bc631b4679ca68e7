// The summary of an answer, and the answer about a group.

import { h } from "./dom.js";
import { probabilities } from "./faces.js";
import { counted, number } from "./words.js";

const LONG_TEXT = 200;

/** Shortens long values for display: the base64 of a heatmap has thousands of letters. */
export function shortened(name, value) {
  const long = typeof value === "string" && value.length > LONG_TEXT;
  return long ? `${value.slice(0, 40)}… (${number(value.length, 0)} letters)` : value;
}

/** What was found, in one sentence. */
export function statusOf({ faces, faces_found, group }) {
  if (group?.probabilities) return `${counted(group.face_count, "face")} together.`;
  if (group) return `Fewer than ${group.min_faces} faces were found.`;
  if (!faces.length) return "No face was found. Faces that are very small, covered or turned away may be missed.";
  const largest = faces.length === 1 ? "largest" : `largest ${faces.length}`;
  const found = `${counted(faces_found, "face")} found${faces_found > faces.length ? `, the ${largest} shown` : ""}`;
  const uncertain = faces.filter((face) => face.verdict === "uncertain").length;
  return uncertain ? `${found}, ${uncertain} uncertain.` : `${found}.`;
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
