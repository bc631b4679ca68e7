// A video: sends it to the service, plays it from this device, and draws the faces of each moment over it.

import { Failure, readJson } from "./api.js";
import { byId, say, show } from "./dom.js";
import { download } from "./downloads.js";
import { framesQuery, key } from "./options.js";
import { Recording, failureOfState } from "./recording.js";
import { smoothed } from "./stream.js";
import { groupTable, tracksTable } from "./tracks.js";
import { bytes, clock, counted, percent } from "./words.js";

const GAP_S = 2; // no faces are shown this long after the last analysed frame
const UNSEEN = " This browser cannot play this type of video. The boxes are still in the right places.";

export class Player {
  #file = null;
  #address = null; // of the file, for this page
  #recording = null;
  #analysed = false;
  #playable = null; // promise: whether this browser can play the video
  #frames = []; // of the timeline: `time_s`, `image`, and `faces` with their numbers
  #shown = null; // the frame that is drawn
  #durationS = 0;

  /** `page`: as for `Live`. `introduce()` returns what the service says about itself. */
  constructor(page, introduce) {
    this.page = page;
    this.introduce = introduce;
    this.video = page.picture.video;
    this.scrub = byId("scrub");
    this.scrub.addEventListener("input", () => this.#seek(Number(this.scrub.value)));
    byId("rows").addEventListener("click", (event) => this.#seekTo(event));
    byId("play").addEventListener("click", () => (this.video.paused ? this.video.play() : this.video.pause()));
    byId("cancel").addEventListener("click", () => this.#close());
    byId("delete").addEventListener("click", () => this.#close());
    for (const one of document.querySelectorAll("[data-result]")) one.addEventListener("click", () => this.#save(one));
    for (const type of ["play", "pause", "seeked", "timeupdate"]) {
      this.video.addEventListener(type, () => this.isOpen && this.#follow(type));
    }
    addEventListener("pagehide", () => this.#recording?.delete());
  }

  get isOpen() {
    return Boolean(this.#file);
  }

  /** Replaces what the page shows by a video. */
  take(file) {
    const { page } = this;
    page.clear();
    this.#file = file;
    this.#address = URL.createObjectURL(file);
    show(byId("drop"), false);
    show(byId("picture"));
    this.#playable = page.picture.showRecording(this.#address);
    this.#playable.then((playable) => file === this.#file && this.#offer(playable));
    this.send();
  }

  /** Sends the video, and shows the results. */
  async send() {
    const { page } = this;
    this.#forget();
    page.problems.clear();
    this.#progress("Waiting for the service", null);
    page.say("The video is being sent.");
    let mine = null;
    const file = this.#file;
    try {
      const service = await this.introduce();
      if (file !== this.#file) return;
      mine = this.#recording = new Recording(service, file, framesQuery(), key());
      const last = await mine.analyse(
        (share) => this.#progress(`Sending the video, ${percent(share)}`, share),
        (state) => mine === this.#recording && this.#work(state),
      );
      const failure = failureOfState(last);
      if (failure) page.fail(failure);
      if (last.frames) await this.#show(mine, !failure);
    } catch (error) {
      // After `delete`, another video or nothing is shown.
      if (mine === this.#recording && file === this.#file) page.fail(error);
    } finally {
      if (mine === this.#recording) show(byId("work"), false);
    }
  }

  /** The options count for the next analysis only. */
  optionsChanged() {
    if (this.#analysed) this.page.problems.advise(["again"]);
    else this.send();
  }

  /** Leaves the video, and deletes the recording. */
  leave() {
    if (!this.isOpen) return;
    this.#forget();
    URL.revokeObjectURL(this.#address);
    this.#file = null;
    this.page.picture.clear();
    for (const id of ["work", "player"]) show(byId(id), false);
  }

  #close() {
    this.leave();
    this.page.problems.clear();
    this.page.showNothing();
    byId("file").focus();
  }

  /** Deletes the recording and its results, but keeps the video. */
  #forget() {
    this.#recording?.delete();
    this.#recording = null;
    this.#frames = [];
    this.#shown = null;
    this.#analysed = false;
    this.page.timeline.clear();
    this.page.clearAnswer();
    show(byId("recording"), false);
  }

  #progress(text, share) {
    show(byId("work"));
    byId("stage").textContent = `${text} …`;
    if (share === null) byId("done").removeAttribute("value");
    else byId("done").value = share;
  }

  #work({ state, progress = null, left_s }) {
    this.page.say(state === "queued" ? "The video waits for others." : "The video is being analysed.");
    const share = progress === null ? "" : `, ${percent(progress)}`;
    const left = left_s >= 1 ? `, ${counted(Math.round(left_s), "second")} left` : "";
    this.#progress(`Looking for faces${share}${left}`, progress);
  }

  async #show(recording, whole) {
    const report = await readJson(await recording.result("report"));
    const grouped = "min_faces" in report.group; // group mode has no timeline
    const { frames } = grouped ? { frames: [] } : await readJson(await recording.result("timeline"));
    const playable = await this.#playable;
    if (recording !== this.#recording) return;
    this.#analysed = true;
    this.#frames = frames.map(({ faces, ...frame }) => ({ ...frame, faces: faces.map(numbered) }));
    this.#setDuration(Math.max(report.duration_s, playable && Number.isFinite(this.video.duration) ? this.video.duration : 0));
    byId("tracks").replaceChildren(...(grouped ? groupTable(report) : tracksTable(report, (time_s) => this.#seek(time_s))));
    for (const one of document.querySelectorAll("[data-result]")) show(one, !grouped || one.dataset.result === "report");
    show(byId("recording"));
    if (!playable && frames.length) this.page.picture.showBlank(frames[0].image);
    show(byId("player"), playable || frames.length > 0);
    if (!grouped) this.page.timeline.showWhole(this.#frames, this.#durationS);
    if (whole) {
      this.page.say(grouped ? "The video was analysed for groups." : "The video was analysed.");
      say("The video was analysed.");
    }
    this.#showTime(this.#timeS);
  }

  #offer(playable) {
    const { name, size } = this.#file;
    byId("caption").textContent = `${name}, ${bytes(size)}.${playable ? "" : UNSEEN}`;
    show(byId("player"), playable);
    show(byId("play"), playable);
    this.#setDuration(playable && Number.isFinite(this.video.duration) ? this.video.duration : 0);
    this.#showTime(0);
  }

  #setDuration(seconds) {
    this.#durationS = seconds;
    this.scrub.max = seconds;
  }

  get #timeS() {
    return this.video.hidden ? Number(this.scrub.value) : this.video.currentTime;
  }

  #seek(time_s) {
    if (this.video.hidden) this.#showTime(time_s);
    else this.video.currentTime = time_s; // `seeked` follows
  }

  /** A click on the timeline. */
  #seekTo({ target, clientX }) {
    if (!this.#analysed || target.tagName !== "CANVAS") return;
    const { left, width } = target.getBoundingClientRect();
    this.#seek((this.#durationS * (clientX - left)) / width);
  }

  #follow(type) {
    byId("play").textContent = this.video.paused ? "Play" : "Pause";
    this.#showTime(this.video.currentTime);
    // Events alone come a few times a second.
    if (type === "play") requestAnimationFrame(() => this.#animate());
  }

  #animate() {
    if (this.video.paused || !this.isOpen) return;
    this.#showTime(this.video.currentTime);
    requestAnimationFrame(() => this.#animate());
  }

  #showTime(time_s) {
    const words = `${clock(time_s)} / ${clock(this.#durationS)}`;
    byId("clock").textContent = words;
    this.scrub.value = time_s;
    this.scrub.setAttribute("aria-valuetext", clock(time_s));
    if (!this.#analysed || !this.#frames.length) return;
    const frame = frameAt(this.#frames, time_s);
    this.page.timeline.mark(Math.min(1, time_s / this.#durationS), frame.faces);
    if (frame === this.#shown) return;
    this.#shown = frame;
    this.page.showFrame(frame, frame.faces);
  }

  async #save(one) {
    const recording = this.#recording;
    try {
      const content = await (await recording.result(one.dataset.result)).blob();
      download(`${this.#file.name.replace(/\.\w+$/, "")}.${one.dataset.name}`, content);
    } catch (error) {
      if (recording !== this.#recording) return;
      // Results live for a while only.
      const gone = error instanceof Failure && error.code === "not_found";
      this.page.problems.show(gone ? new Failure("The service no longer has these results.") : error);
    }
  }
}

const numbered = (face) => ({ ...smoothed(face), number: face.track });

/** The last frame at `time_s`; without its faces if it is too old. */
function frameAt(frames, time_s) {
  let [low, high] = [0, frames.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (frames[middle].time_s <= time_s + 0.001) low = middle;
    else high = middle - 1;
  }
  const frame = frames[low];
  return time_s - frame.time_s > GAP_S ? { ...frame, faces: [], faces_found: 0 } : frame;
}
