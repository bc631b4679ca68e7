// How each emotion looks: a colour and a small drawn face, so that colour is never the only sign.

const OTHER = { colour: "#7b8496", face: "M9.5 9.5a2.5 2.5 0 1 1 3.6 2.3c-.8.4-1.1.9-1.1 1.9M12 17v.1" };
const EYES = "M8.7 9v.8M15.3 9v.8";
const WIDE_EYES = "M8.7 7.6a1.2 1.2 0 1 0 .01 0M15.3 7.6a1.2 1.2 0 1 0 .01 0";
// Each colour has a contrast of at least 3:1 with the cards of both colour schemes.
const LOOKS = {
  neutral: { colour: "#7b8496", face: `${EYES}M8 15.5h8` },
  happiness: { colour: "#bf7d00", face: `${EYES}M7 13.5c.8 5 9.2 5 10 0z` },
  surprise: { colour: "#cf4f9b", face: `${WIDE_EYES}M12 13.2a1.9 2.3 0 1 0 .01 0` },
  sadness: { colour: "#3d7edb", face: `${EYES}M6.6 7.6l3-1.4M17.4 7.6l-3-1.4M8 17.2c1.2-3 6.8-3 8 0` },
  anger: { colour: "#d9432f", face: `${EYES}M6.6 5.9l3.2 1.8M17.4 5.9l-3.2 1.8M8 16.8c1.2-2.4 6.8-2.4 8 0` },
  disgust: { colour: "#4a9440", face: "M7.2 8.2l3 1.4-3 1M16.8 8.2l-3 1.4 3 1M7 16.6l2-2 2 2 2-2 2 2 2-2" },
  fear: { colour: "#8b60e0", face: `${WIDE_EYES}M7.5 15h9v2.2h-9zM10.5 15v2.2M13.5 15v2.2` },
  contempt: { colour: "#108a8e", face: `${EYES}M7 6.5h3.4M8 16.3h4.5c2 0 3-.9 3.8-2.6` },
};
const SVG = "http://www.w3.org/2000/svg";
const SIZE = 24; // of the drawings

const lookOf = (emotion) => LOOKS[emotion] ?? OTHER;
export const colourOf = (emotion) => lookOf(emotion).colour;

/** Gives the element, and all within it, the colour of the emotion as `--hue`. */
export function paint(element, emotion) {
  element.style.setProperty("--hue", colourOf(emotion));
  return element;
}

/** The emotion's face as an SVG element. Screen readers skip it: the name is beside it as text. */
export function glyph(emotion) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${SIZE} ${SIZE}`);
  picture.setAttribute("class", "glyph");
  picture.setAttribute("aria-hidden", "true");
  for (const shape of ["M12 1a11 11 0 1 0 .01 0", lookOf(emotion).face]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", shape);
    picture.append(path);
  }
  return paint(picture, emotion);
}

/** The emotion's face on a canvas, `size` px wide, with its middle at `x`, `y`. */
export function drawGlyph(pen, emotion, x, y, size) {
  pen.save();
  pen.translate(x - size / 2, y - size / 2);
  pen.scale(size / SIZE, size / SIZE);
  pen.fillStyle = colourOf(emotion);
  pen.strokeStyle = "#fff";
  pen.lineCap = pen.lineJoin = "round";
  const disc = new Path2D("M12 1a11 11 0 1 0 .01 0");
  pen.fill(disc);
  pen.lineWidth = 1.2;
  pen.stroke(disc);
  pen.lineWidth = 1.8;
  pen.stroke(new Path2D(lookOf(emotion).face));
  pen.restore();
}
