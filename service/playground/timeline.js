// A timeline: for each face, the share of each emotion over the last minute of the camera, or over a whole video.

import { byId, h, legendOf, show, stacked } from "./dom.js";
import { colourOf, drawGlyph, glyph } from "./emotions.js";
import { clock, counted, percent } from "./words.js";

const WINDOW_S = 60;
const GAP_S = 2; // a face that was not seen for longer has a gap
const MAX_ROWS = 6;
const GLYPH_PX = 18;

export class Timeline {
  constructor() {
    this.place = byId("timeline");
    this.legend = this.place.querySelector(".emotions");
    this.axis = this.place.querySelector(".axis");
    this.list = byId("rows");
    addEventListener("resize", () => this.#redraw());
    this.clear();
  }

  clear() {
    this.rows = new Map(); // by the number of the face
    this.drawn = []; // the rows that are shown
    this.list.replaceChildren();
    this.list.classList.remove("whole");
    this.legend.replaceChildren();
    show(this.place, false);
  }

  /** `faces`: with `number`, `emotion`, `verdict` and `probabilities`, as seen at `time_s`. */
  add(time_s, faces) {
    this.#keep(time_s, faces);
    for (const [number, row] of this.rows) {
      while (row.moments.length && row.moments[0].time_s < time_s - WINDOW_S - GAP_S) row.moments.shift();
      if (!row.moments.length) this.rows.delete(number);
    }
    this.#draw([...this.rows.values()].slice(-MAX_ROWS), time_s, WINDOW_S, ["60 s ago", "30 s ago", "now"]);
  }

  /** Shows a whole video. `moments`: `time_s` and `faces` of each frame. Of many faces, those of the most frames. */
  showWhole(moments, duration_s) {
    this.clear();
    for (const { time_s, faces } of moments) this.#keep(time_s, faces);
    const rows = [...this.rows.values()].sort((one, other) => other.moments.length - one.moments.length);
    const shown = rows.slice(0, MAX_ROWS).sort((one, other) => one.number - other.number);
    for (const { canvas, number } of shown) canvas.ariaLabel = `Emotions of face ${number} over the video`;
    this.list.classList.toggle("whole", shown.length > 0);
    this.#draw(shown, duration_s, duration_s, ["0:00", clock(duration_s / 2), clock(duration_s)]);
  }

  /** Marks the present place, from 0 to 1, of a whole video, and the faces that are seen there. */
  mark(place, faces) {
    this.list.style.setProperty("--at", place);
    for (const { number, now } of this.drawn) {
      const face = faces.find((one) => one.number === number);
      now.replaceChildren(...(face ? [glyph(face.emotion), face.emotion] : ["not seen"]));
    }
  }

  #keep(time_s, faces) {
    if (faces[0] && !this.legend.children.length) {
      this.legend.replaceChildren(...legendOf(Object.keys(faces[0].probabilities)));
    }
    for (const face of faces) {
      if (!this.rows.has(face.number)) this.rows.set(face.number, newRow(face.number));
      const row = this.rows.get(face.number);
      row.moments.push({ time_s, ...face });
      row.now.replaceChildren(glyph(face.emotion), face.emotion);
    }
  }

  #draw(rows, now_s, window_s, labels) {
    show(this.place);
    Object.assign(this, { drawn: rows, now_s, window_s });
    const shown = rows.map((row) => row.element);
    if (shown.some((one, at) => one !== this.list.children[at])) this.list.replaceChildren(...shown);
    [...this.axis.children].forEach((label, at) => (label.textContent = labels[at]));
    this.#redraw();
  }

  #redraw() {
    for (const row of this.drawn) draw(row, this.now_s, this.window_s);
  }
}

function newRow(number) {
  const canvas = h("canvas", { role: "img", "aria-label": `Emotions of face ${number} over the last minute` });
  const now = h("span", { class: "now" });
  const name = h("span", { class: "number" }, h("span", { class: "unseen" }, "Face "), String(number));
  return { element: h("li", {}, h("span", { class: "name" }, name, now), canvas), canvas, now, number, moments: [] };
}

function draw({ canvas, moments }, now_s, window_s) {
  const scale = devicePixelRatio;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  // Whole pixels of the screen, so that no gaps show between the stretches.
  const at = (time_s) => Math.round(width * scale * (1 - (now_s - time_s) / window_s)) / scale;
  const spans = moments.map((moment, index) => {
    const end = moments[index + 1]?.time_s ?? now_s;
    return { ...moment, left: at(moment.time_s), right: at(Math.min(end, moment.time_s + GAP_S)) };
  });
  for (const { left, right, probabilities, verdict } of spans) {
    let base = height;
    pen.globalAlpha = verdict === "certain" ? 1 : 0.4;
    for (const [emotion, share] of Object.entries(probabilities)) {
      pen.fillStyle = colourOf(emotion);
      pen.fillRect(left, base - share * height, right - left, share * height);
      base -= share * height;
    }
  }
  pen.globalAlpha = 1;
  // A face at the start of each stretch with the same emotion: colour is not the only sign.
  let free = 0;
  spans.forEach(({ left, emotion }, index) => {
    const begins = spans[index - 1]?.emotion !== emotion || spans[index - 1].right < left - 1;
    const x = Math.max(left, 0) + GLYPH_PX / 2 + 2;
    if (!begins || x < free || x > width - GLYPH_PX / 2) return;
    drawGlyph(pen, emotion, x, height / 2, GLYPH_PX);
    free = x + GLYPH_PX;
  });
}

/** The summary of a stream, as a list: how long each face was seen, and with which emotions. */
export function tracksOf({ tracks }) {
  const items = tracks.map(({ track, first_seen_s, last_seen_s, time_share, certain }) => {
    const shares = Object.entries(time_share).filter(([, share]) => share > 0);
    shares.sort(([, one], [, other]) => other - one);
    const seconds = counted(Math.round(last_seen_s - first_seen_s), "second");
    const text = `seen for ${seconds}, certain for ${percent(certain)} of the time`;
    const head = h("p", { class: "name" }, h("span", { class: "number" }, String(track)), text);
    const names = shares.map(([emotion, share]) =>
      h("span", { class: "name" }, glyph(emotion), `${emotion} ${percent(share)}`),
    );
    return h("li", {}, head, stacked(shares), h("p", { class: "shares" }, ...names));
  });
  return h("ol", { class: "tracks" }, ...items);
}
