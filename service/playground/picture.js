// The photo, the camera or the video, and the boxes over it.

import { byId, h, show } from "./dom.js";
import { glyph, paint } from "./emotions.js";
import { NAMED_FACES, UNCERTAIN, kindOf } from "./faces.js";
import { percent } from "./words.js";

const LARGEST_ZOOM = 2;
const CROP_PX = 96;
const CROP_MARGIN = 0.15;

export class Picture {
  /** `choose(number)` is called when the user picks a face. */
  constructor(choose) {
    this.image = byId("image");
    this.video = byId("video");
    this.boxes = byId("boxes");
    this.frame = this.image.parentElement;
    this.choose = choose;
    // Turning a phone changes the size of its video.
    this.video.addEventListener("resize", () => this.#shape(this.video.videoWidth, this.video.videoHeight));
    this.boxes.addEventListener("click", (event) => {
      const box = event.target.closest("button");
      if (box) this.choose(Number(box.dataset.number));
    });
    this.boxes.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Shows the photo at `address`; false if this browser cannot show it. */
  async showPhoto(address) {
    this.clear();
    this.image.src = address;
    const drawn = await this.image.decode().then(() => true, () => false);
    if (this.image.src !== address) return drawn; // another photo was chosen meanwhile
    if (drawn) this.#shape(this.image.naturalWidth, this.image.naturalHeight);
    show(this.image, drawn);
    return drawn;
  }

  showVideo(stream) {
    this.clear();
    this.video.srcObject = stream;
    this.video.ariaLabel = "The camera";
    show(this.video);
    return this.video.play();
  }

  /** Shows the video file at `address`; false if this browser cannot play it. */
  async showRecording(address) {
    this.clear();
    const { video } = this;
    Object.assign(video, { src: address, muted: false, ariaLabel: "The video that you chose" });
    show(video);
    const event = await new Promise((resolve) => {
      for (const type of ["loadeddata", "error"]) video.addEventListener(type, resolve, { once: true });
    });
    const drawn = event.type === "loadeddata" && video.videoWidth > 0;
    if (video.src === address) show(video, drawn);
    return drawn;
  }

  clear() {
    this.image.removeAttribute("src");
    this.video.removeAttribute("src");
    this.video.srcObject = null;
    this.video.muted = true;
    show(this.image, false);
    show(this.video, false);
    this.frame.classList.remove("blank");
    this.showFaces([]);
  }

  /** Draws the boxes, relative to the size of the photo, so that they fit at any width. */
  showFaces(faces, size) {
    byId("marks").replaceChildren(...faces.flatMap((face) => [...mapOver(face, size), ...dots(face, size)]));
    this.frame.classList.toggle("many", faces.length > NAMED_FACES);
    // Existing boxes are reused, so that the next frame of a camera does not take the focus away.
    while (this.boxes.children.length > faces.length) this.boxes.lastChild.remove();
    while (this.boxes.children.length < faces.length) this.boxes.append(newBox(this.boxes.children.length));
    faces.forEach((face, index) => label(this.boxes.children[index], face, size, faces.length));
  }

  /** Fades the faces that are not of this kind; null: none. */
  only(kind) {
    for (const box of this.boxes.children) box.classList.toggle("faded", Boolean(kind) && box.dataset.kind !== kind);
  }

  /** For a photo that the browser cannot show: an empty field with the photo's aspect ratio. */
  showBlank(size) {
    this.frame.classList.add("blank");
    this.#shape(size.width, size.height);
  }

  #shape(width, height) {
    this.frame.style.setProperty("--ratio", width / height);
    this.frame.style.setProperty("--widest", `${LARGEST_ZOOM * width}px`);
  }

  /** Marks the face that the list shows. */
  mark(number) {
    for (const box of this.boxes.children) {
      const chosen = Number(box.dataset.number) === number;
      box.classList.toggle("chosen", chosen);
      box.tabIndex = chosen ? 0 : -1;
    }
  }

  #walk(event) {
    const boxes = [...this.boxes.children];
    const here = boxes.indexOf(document.activeElement);
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -here, End: boxes.length - 1 - here };
    const to = boxes[here + steps[event.key]];
    if (here < 0 || !to) return;
    event.preventDefault();
    for (const box of boxes) box.tabIndex = box === to ? 0 : -1;
    to.focus();
  }

  /** The face as a small canvas; null if no picture is shown. */
  crop(face, size) {
    const source = this.video.hidden ? this.image : this.video;
    if (source.hidden) return null;
    // The browser's pixels may be fewer or more than the service's.
    const scale = (source.naturalWidth || source.videoWidth) / size.width;
    const { x, y, width, height } = face.box;
    const side = Math.max(width, height) * (1 + 2 * CROP_MARGIN) * scale;
    const canvas = h("canvas", { class: "crop", width: CROP_PX, height: CROP_PX, "aria-hidden": "true" });
    const left = (x + width / 2) * scale - side / 2;
    const top = (y + height / 2) * scale - side / 2;
    canvas.getContext("2d").drawImage(source, left, top, side, side, 0, 0, CROP_PX, CROP_PX);
    return canvas;
  }
}

function newBox(index) {
  // All boxes together are one stop of the Tab key.
  return h("button", { type: "button", tabindex: index === 0 ? "0" : "-1" }, h("span", { "aria-hidden": "true" }));
}

function label(box, face, size, count) {
  const { number, emotion, verdict } = face;
  const chosen = box.classList.contains("chosen");
  const text = `Face ${number}: ${emotion}, ${percent(face.confidence)}, ${verdict}`;
  paint(box, emotion).className = `box ${verdict}`;
  box.dataset.number = number;
  box.dataset.kind = kindOf(face);
  box.classList.toggle("chosen", chosen);
  // A label that would leave the photo is drawn inside the box.
  box.classList.toggle("low", face.box.y < 0.08 * size.height);
  box.classList.toggle("right", face.box.x > 0.6 * size.width);
  box.setAttribute("aria-label", text);
  box.title = text;
  const name = count <= NAMED_FACES && h("span", { class: "label" }, ` ${emotion}${verdict === UNCERTAIN ? "?" : ""}`);
  box.firstChild.replaceChildren(...[glyph(emotion), String(number), name].filter(Boolean));
  place(box, face.box, size);
}

function place(element, box, size) {
  element.style.left = `${(100 * box.x) / size.width}%`;
  element.style.top = `${(100 * box.y) / size.height}%`;
  element.style.width = `${(100 * box.width) / size.width}%`;
  element.style.height = `${(100 * box.height) / size.height}%`;
}

function mapOver(face, size) {
  if (!face.heatmap) return [];
  const map = h("img", { class: "map", alt: "", src: `data:image/png;base64,${face.heatmap.png}` });
  place(map, face.heatmap.box ?? face.box, size);
  return [map];
}

function dots(face, size) {
  return Object.values(face.landmarks ?? {}).map(({ x, y }) => {
    const dot = h("span", { class: "dot", "aria-hidden": "true" });
    dot.style.left = `${(100 * x) / size.width}%`;
    dot.style.top = `${(100 * y) / size.height}%`;
    return dot;
  });
}
