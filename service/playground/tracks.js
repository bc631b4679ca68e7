// A recording as a whole: a table of its faces, or the group of a service in group mode.

import { button, h, stacked } from "./dom.js";
import { glyph } from "./emotions.js";
import { probabilities } from "./faces.js";
import { clock, percent } from "./words.js";

const LONGEST_TABLE = 100;
const NAMED_SHARES = 3;

/** The report of a recording. `seek(time_s)` shows another moment. */
export function tracksTable({ tracks, tracks_omitted = 0 }, seek) {
  if (!tracks.length) return [h("p", { class: "hint" }, "No face was found in the video.")];
  const shown = tracks.slice(0, LONGEST_TABLE);
  const rows = shown.map((track) => row(track, seek));
  const heads = ["Face", "Seen", "Share of its time", "Certain"].map((name) => h("th", { scope: "col" }, name));
  const table = h("table", { class: "tracks-table" }, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows));
  const omitted = tracks.length - shown.length + tracks_omitted;
  return omitted ? [table, h("p", { class: "hint" }, `${omitted} more faces are not shown.`)] : [table];
}

function row({ track, first_seen_s, last_seen_s, time_share, certain }, seek) {
  const shares = Object.entries(time_share).filter(([, share]) => share > 0);
  shares.sort(([, one], [, other]) => other - one);
  const names = shares
    .slice(0, NAMED_SHARES)
    .map(([emotion, share]) => h("span", { class: "name" }, glyph(emotion), `${emotion} ${percent(share)}`));
  const moment = { class: "moment", "aria-label": `Show face ${track} at ${clock(first_seen_s)}` };
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, h("span", { class: "number" }, String(track))),
    h("td", {}, button(moment, () => seek(first_seen_s), clock(first_seen_s)), ` to ${clock(last_seen_s)}`),
    h("td", {}, stacked(shares), h("p", { class: "shares" }, ...names)),
    h("td", { class: "value" }, percent(certain)),
  );
}

/** The report of a service that answers groups only. */
export function groupTable({ group, minutes }) {
  const words = `This service answers for groups of at least ${group.min_faces} faces, and never for a single face.`;
  const seen = `${percent(group.grouped)} of the frames show a group.`;
  const parts = [h("p", {}, seen), h("p", { class: "hint" }, words)];
  if (!group.probabilities) return parts;
  const rows = minutes.map((minute) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, clock(minute.start_s)),
      h("td", { class: "value" }, percent(minute.grouped)),
      h("td", {}, ...topOf(minute.probabilities)),
    ),
  );
  const heads = ["Minute", "With a group", "Most probable"].map((name) => h("th", { scope: "col" }, name));
  const [[top]] = sorted(group.probabilities);
  return [
    ...parts,
    probabilities(group.probabilities, top, "certain", "Mean probabilities of the group"),
    h("table", { class: "tracks-table" }, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows)),
  ];
}

const sorted = (shares) => Object.entries(shares).sort(([, one], [, other]) => other - one);

function topOf(shares) {
  if (!shares) return ["no group"];
  const [[emotion, share]] = sorted(shares);
  return [h("span", { class: "name" }, glyph(emotion), `${emotion} ${percent(share)}`)];
}
