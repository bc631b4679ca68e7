// Answers as files: JSON, CSV, and the photo with its faces marked.

import { h } from "./dom.js";
import { colourOf, drawGlyph } from "./emotions.js";
import { NAMED_FACES, UNCERTAIN } from "./faces.js";
import { percent } from "./words.js";

export function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address));
}

/** `rows`: objects. Dots join nested names, as in the CSV of `expressnet predict`. */
export function csvOf(rows) {
  const flat = rows.map((row) => Object.fromEntries(leaves(row)));
  const columns = [...new Set(flat.flatMap(Object.keys))];
  const line = (values) => values.map(cell).join(",");
  return [line(columns), ...flat.map((row) => line(columns.map((name) => row[name] ?? "")))].join("\n") + "\n";
}

function* leaves(value, name = "") {
  if (Array.isArray(value)) yield [name, value.join(" ")];
  else if (typeof value !== "object" || value === null) yield [name, value];
  else for (const [key, below] of Object.entries(value)) yield* leaves(below, name ? `${name}.${key}` : key);
}

const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/** One row for each face; one row for a photo or a frame without faces. */
export function rowsOf(head, { faces = [], ...rest }) {
  const common = { ...head, image_width: rest.image.width, image_height: rest.image.height };
  if (rest.group) return [{ ...common, ...rest.group }];
  const counts = { ...common, faces_found: rest.faces_found, faces: faces.length };
  return faces.length ? faces.map((face, index) => ({ ...counts, face: index, ...face })) : [counts];
}

/** The photo in its own size, with a box and a label for each face, as JPEG. */
export function annotated(image, { faces = [], image: size }) {
  const canvas = h("canvas", { width: size.width, height: size.height });
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0, size.width, size.height);
  const line = Math.max(2, Math.min(size.width, size.height) / 300);
  // The largest face is drawn last, so that no other label covers its label.
  for (const face of [...faces].reverse()) {
    const { x, y, width, height } = face.box;
    pen.setLineDash(face.verdict === UNCERTAIN ? [3 * line, 2 * line] : []);
    for (const [colour, share] of [["rgb(0 0 0 / 60%)", 2], [colourOf(face.emotion), 1]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line * share;
      pen.strokeRect(x, y, width, height);
    }
  }
  const room = faces.length > NAMED_FACES ? 1.4 : Infinity; // of a label, in widths of its box
  for (const face of [...faces].reverse()) label(pen, face, size, room);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

function label(pen, { box, emotion, confidence, verdict }, size, room) {
  const px = Math.max(11, Math.min(box.width / 6, size.height / 16));
  pen.font = `600 ${px}px system-ui, sans-serif`;
  const sign = verdict === UNCERTAIN ? " ?" : "";
  const widthOf = (text) => pen.measureText(text).width + 2.1 * px;
  // In a crowd, long labels would cover other faces.
  const texts = [`${emotion} ${percent(confidence)}${sign}`, `${emotion}${sign}`, sign];
  const text = texts.find((one) => widthOf(one) <= room * box.width) ?? "";
  const [width, height] = [widthOf(text), 1.6 * px];
  const left = Math.max(0, Math.min(box.x, size.width - width));
  const top = box.y >= height ? box.y - height : box.y;
  pen.fillStyle = "rgb(13 16 28 / 85%)";
  pen.fillRect(left, top, width, height);
  drawGlyph(pen, emotion, left + 0.9 * px, top + height / 2, 1.2 * px);
  pen.fillStyle = "#fff";
  pen.textBaseline = "middle";
  pen.fillText(text, left + 1.7 * px, top + height / 2);
}
