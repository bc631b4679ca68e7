// The camera: takes a picture, or follows the faces in front of it.

import { Camera } from "./camera.js";
import { byId, show } from "./dom.js";
import { framesQuery, key } from "./options.js";
import { Stream, smoothed } from "./stream.js";
import { number } from "./words.js";

const SNAPSHOT_PX = 1920;
const LIVE_PX = 640; // large enough for faces in front of a webcam, and quick to send
const MAX_FRAMES = 20_000; // that are kept for downloads
const NO_HEATMAP = "A heatmap takes too long for the camera.";

export class Live {
  frames = []; // answers of the last stream
  #camera = new Camera();
  #stream = null; // the open stream

  /**
   * `page` has `picture`, `problems`, `timeline`, `take(files)`, `hasPhotos()`, `clear()`, `say(text)`, `fail(error)`,
   * `showFrame(message, faces)`, `showSummary(summary)` and `showNothing()`.
   */
  constructor(page) {
    this.page = page;
    byId("camera-start").addEventListener("click", () => this.start());
    byId("camera-take").addEventListener("click", () => this.#snap());
    byId("camera-live").addEventListener("click", () => (this.#stream ? this.#stream.end() : this.go()));
    byId("camera-stop").addEventListener("click", () => this.#stop());
  }

  get cameraIsOn() {
    return Boolean(this.#camera.stream);
  }

  get isOpen() {
    return Boolean(this.#stream);
  }

  async start() {
    const { page } = this;
    page.clear();
    try {
      const media = await this.#camera.start();
      if (page.hasPhotos()) {
        this.#camera.stop(); // a photo arrived while the browser asked for permission
        return;
      }
      media.getVideoTracks()[0].addEventListener("ended", () => this.#stop());
      show(byId("drop"), false);
      show(byId("picture"));
      await page.picture.showVideo(media);
      this.#showButtons(true);
      this.#idle();
    } catch (error) {
      this.#stop();
      page.fail(error);
    }
  }

  /** Follows the faces until the stream is ended. */
  async go() {
    const { page } = this;
    this.#stream?.close();
    const mine = new Stream(framesQuery(), key());
    this.#set(mine);
    this.frames = [];
    page.clear();
    page.timeline.clear();
    page.say("Live.");
    const capture = () => this.#camera.take(page.picture.video, LIVE_PX, 0.85);
    const showing = (message, ms) => this.#stream === mine && this.#show(message, ms);
    const refuse = (failure) => this.#stream === mine && page.problems.show(failure);
    try {
      const summary = await mine.run(capture, showing, refuse);
      if (this.#stream !== mine) return;
      this.#set(null);
      this.#idle();
      page.showSummary(summary);
    } catch (error) {
      if (this.#stream !== mine) return;
      this.#set(null);
      page.fail(error);
    }
  }

  /** Turns the camera off. */
  leave() {
    if (!this.cameraIsOn) return;
    this.page.timeline.clear();
    this.#stream?.close();
    this.#set(null);
    this.#camera.stop();
    this.#showButtons(false);
  }

  #stop() {
    this.leave();
    this.page.showNothing();
  }

  async #snap() {
    this.page.take([await this.#camera.take(this.page.picture.video, SNAPSHOT_PX, 0.92)]);
  }

  #show(message, ms) {
    const { page } = this;
    this.frames.push(message);
    if (this.frames.length > MAX_FRAMES) this.frames.shift();
    const faces = (message.faces ?? []).map((face) => ({ ...smoothed(face), number: face.track }));
    page.problems.clear();
    page.timeline.add(message.time_s, faces);
    byId("caption").textContent = `Live: frame ${message.frame + 1}, answered in ${number(ms, 0)} ms.`;
    page.showFrame(message, faces);
  }

  #idle() {
    byId("caption").textContent = "Nothing is sent until you take a picture or go live.";
    this.page.say("The camera is on.");
  }

  #set(stream) {
    this.#stream = stream;
    byId("camera-live").setAttribute("aria-pressed", String(Boolean(stream)));
    const heatmap = document.querySelector('[name="include"][value="heatmap"]');
    if (heatmap) Object.assign(heatmap, { disabled: Boolean(stream), title: stream ? NO_HEATMAP : "" });
  }

  #showButtons(on) {
    const within = document.activeElement?.id.startsWith("camera-");
    show(byId("camera-start"), !on);
    for (const id of ["camera-take", "camera-live", "camera-stop"]) show(byId(id), on);
    // The pressed button is hidden now: the focus moves to the button in its place.
    if (within) byId(on ? "camera-live" : "camera-start").focus();
  }
}
