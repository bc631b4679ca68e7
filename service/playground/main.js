// Ties the page together: a photo comes in, an answer or a failure is shown.

import { groupOf, shortened, statusOf } from "./answer.js";
import { Failure, askEmotions, curlCommand, readCards, readService } from "./api.js";
import { Camera } from "./camera.js";
import { modelCard } from "./card.js";
import { byId, h, say, show } from "./dom.js";
import { FaceList } from "./faces.js";
import { watchIntake } from "./intake.js";
import { Picture } from "./picture.js";
import { timingsOf } from "./timings.js";
import { INCLUDE, bytes, spaced } from "./words.js";

const SNAPSHOT_PX = 1920;
const CAMERA_IDLE = "The camera. Nothing is sent until you take a picture or go live.";
const LIVE_PX = 640; // faces before a webcam are large enough in this, and it travels quickly

const camera = new Camera();
const list = new FaceList((index) => picture.mark(index));
const picture = new Picture((index) => list.choose(index));
let service = null;
let photo = null; // the file that is shown, if there is one
let drawn = null; // promise: whether this browser could draw it
let running = null; // ends the request that is under way
let live = false;
let pressed = false; // a button of the mouse, or a finger
let json = "";

watchIntake(byId("drop").closest(".photo"), take, (failure) => showFailure(failure));
byId("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) take(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
byId("camera-start").addEventListener("click", startCamera);
byId("camera-take").addEventListener("click", snapshot);
byId("camera-live").addEventListener("click", () => (live ? stopLive() : goLive()));
byId("camera-stop").addEventListener("click", stopCamera);
byId("options").addEventListener("submit", (event) => event.preventDefault());
byId("options").addEventListener("change", () => photo && send());
byId("card").addEventListener("toggle", ({ target }) => target.open && showCard());
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", copy);
addEventListener("pointerdown", () => (pressed = true));
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => (pressed = false));
introduce();

/** Fits the page to the service that it came from. */
async function introduce() {
  try {
    service = await readService();
  } catch (error) {
    showFailure(error, introduce);
    return;
  }
  clearFailure();
  byId("version").textContent = service.version;
  show(byId("docs"), service.shows_docs);
  show(byId("key-field"), service.asks_for_key);
  const needed = service.allows_anonymous ? "Not needed, but yours may allow more." : "Needed.";
  byId("key-hint").textContent = `${needed} It stays on this page, and is gone when you close it.`;
  const choices = service.include.map((part) =>
    h("label", {}, h("input", { type: "checkbox", name: "include", value: part }), INCLUDE[part] ?? spaced(part)),
  );
  byId("include").replaceChildren(...choices);
  // A service that speaks of groups only lets nobody choose.
  show(byId("choices"), choices.length > 0);
}

/** A new photo, from wherever. */
function take(file) {
  leaveCamera();
  photo = file;
  show(byId("drop"), false);
  show(byId("picture"));
  byId("caption").textContent = `${file.name}, ${bytes(file.size)}`;
  drawn = picture.showPhoto(file);
  clearAnswer();
  return send();
}

/** Asks about the photo that is there, with the options as they are. */
async function send() {
  if (!service) await introduce();
  if (!service) return;
  const mine = begin("Looking for faces …");
  try {
    const result = await askEmotions(service, photo, query(), key(), mine.signal);
    const visible = await drawn;
    if (mine !== running) return;
    showPhotoAnswer(result, visible);
  } catch (error) {
    if (mine !== running) return;
    clearAnswer();
    showFailure(error, send);
  }
  settle(mine);
}

function begin(status) {
  running?.abort();
  running = new AbortController();
  clearFailure();
  setStatus(status);
  byId("faces").setAttribute("aria-busy", "true");
  return running;
}

function settle(mine) {
  if (mine === running) byId("faces").setAttribute("aria-busy", "false");
}

function query() {
  const options = byId("choices");
  const asked = {};
  for (const input of options.querySelectorAll('input[type="number"]')) {
    if (input.value !== input.defaultValue) asked[input.name] = input.value;
  }
  if (byId("whole").checked) asked.detect = "false";
  const parts = [...options.querySelectorAll('input[name="include"]:checked')].map((input) => input.value);
  if (parts.length) asked.include = parts.join(",");
  return asked;
}

function key() {
  return byId("key").value.trim();
}

function showPhotoAnswer(result, visible) {
  const { image } = result.answer;
  const size = `${image.width} x ${image.height} px`;
  const unseen = visible ? "" : " This browser cannot draw this kind of file; the boxes are at their places all the same.";
  byId("caption").textContent = `${photo.name}, ${size}, ${bytes(photo.size)}.${unseen}`;
  if (!visible) picture.showBlank(image);
  showAnswer(result, photo, false);
}

/** `again`: one more answer about the same scene. */
function showAnswer({ answer, stages, roundTripMs }, sent, again) {
  const faces = answer.faces ?? [];
  picture.showFaces(answer);
  list.show(faces, (face) => picture.crop(face, answer.image), again);
  if (!again) picture.mark(0);
  byId("group").replaceChildren(...groupOf(answer.group));
  setStatus(statusOf(answer));
  byId("timings").replaceChildren(...timingsOf(stages, roundTripMs));
  byId("curl").textContent = curlCommand(service, sent, query(), key());
  json = JSON.stringify(answer, null, 2);
  byId("json").textContent = JSON.stringify(answer, shortened, 2);
  show(byId("answer"));
  show(byId("legend"), false);
}

function clearAnswer() {
  picture.showFaces(null);
  list.clear();
  byId("group").replaceChildren();
  show(byId("answer"), false);
}

function setStatus(text) {
  // Written only when it changes, so that it is not read out for each frame of a camera.
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

/** `again` does once more what failed, if that makes sense. */
function showFailure(error, again) {
  if (!(error instanceof Failure)) console.error(error);
  const told = error instanceof Failure ? error : new Failure("Something went wrong in this page.");
  const { message, detail, requestId } = told;
  const button = again && h("button", { type: "button" }, "Try again");
  button?.addEventListener("click", () => again());
  const parts = [
    h("p", { class: "lead" }, message),
    detail && h("p", {}, detail),
    requestId && h("p", { class: "hint" }, `Request ${requestId}`),
    button,
  ];
  byId("problem").replaceChildren(h("div", { class: "problem" }, ...parts.filter(Boolean)));
  setStatus("No answer.");
}

function clearFailure() {
  byId("problem").replaceChildren();
}

async function startCamera() {
  running?.abort();
  running = null;
  photo = null;
  clearAnswer();
  clearFailure();
  try {
    const stream = await camera.start();
    if (photo) {
      camera.stop(); // one came while the browser asked for leave
      return;
    }
    stream.getVideoTracks()[0].addEventListener("ended", stopCamera);
    show(byId("drop"), false);
    show(byId("picture"));
    byId("caption").textContent = CAMERA_IDLE;
    await picture.showVideo(stream);
    showCameraButtons(true);
    setStatus("The camera is on.");
  } catch (error) {
    stopCamera();
    showFailure(error, startCamera);
  }
}

function showCameraButtons(on) {
  const within = document.activeElement?.id.startsWith("camera-");
  show(byId("camera-start"), !on);
  for (const id of ["camera-take", "camera-live", "camera-stop"]) show(byId(id), on);
  // The button that was pressed is gone: the focus goes to what took its place.
  if (within) byId(on ? "camera-take" : "camera-start").focus();
}

function leaveCamera() {
  if (!camera.stream) return;
  stopLive();
  camera.stop();
  showCameraButtons(false);
}

function stopCamera() {
  leaveCamera();
  picture.clear();
  clearAnswer();
  show(byId("picture"), false);
  show(byId("drop"));
  setStatus("No photo yet.");
}

async function snapshot() {
  const shot = await camera.take(picture.video, SNAPSHOT_PX, 0.92);
  await take(shot);
}

/** One frame at a time, always the newest: the next is taken when the last one is answered. */
async function goLive() {
  live = true;
  byId("camera-live").setAttribute("aria-pressed", "true");
  byId("caption").textContent = "Live: pictures go to the service, one after the other.";
  const mine = begin("Live.");
  settle(mine);
  let again = false;
  while (mine === running) {
    try {
      // A browser stops this while the page is hidden, and with it the sending.
      await new Promise((resolve) => requestAnimationFrame(resolve));
      const frame = await camera.take(picture.video, LIVE_PX, 0.85);
      const result = await askEmotions(service, frame, query(), key(), mine.signal);
      if (mine !== running) return;
      clearFailure();
      // A click is lost when what it is on is replaced between its press and its release.
      if (pressed) continue;
      showAnswer(result, frame, again);
      again = true;
    } catch (error) {
      if (mine !== running) return;
      if (!error.retryAfterS) {
        stopLive();
        showFailure(error, goLive);
        return;
      }
      showFailure(error);
      await new Promise((resolve) => setTimeout(resolve, 1e3 * error.retryAfterS));
    }
  }
}

function stopLive() {
  if (!live) return;
  live = false;
  running?.abort();
  running = null;
  byId("camera-live").setAttribute("aria-pressed", "false");
  byId("caption").textContent = CAMERA_IDLE;
  byId("faces").setAttribute("aria-busy", "false");
  clearAnswer();
  clearFailure();
  setStatus("The camera is on.");
}

async function showCard() {
  try {
    byId("card-text").replaceChildren(...modelCard(await readCards(key())));
  } catch (error) {
    byId("card-text").replaceChildren(h("p", {}, error instanceof Failure ? error.message : "The card cannot be read."));
  }
}

async function copy({ currentTarget }) {
  const shown = byId(currentTarget.dataset.of);
  try {
    await navigator.clipboard.writeText(shown.id === "json" ? json : shown.textContent);
    say("Copied.");
    currentTarget.classList.add("done");
    setTimeout(() => currentTarget.classList.remove("done"), 1500);
  } catch {
    // Without HTTPS a page may not write to the clipboard.
    getSelection().selectAllChildren(shown);
    say("Selected. Press Ctrl and C to copy it.");
  }
}
