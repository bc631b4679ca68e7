// Connects the parts of the page: it takes a photo, and shows the answer or the failure.

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
const CAMERA_IDLE = "The camera is on. Nothing is sent until you take a picture or go live.";
const LIVE_PX = 640; // large enough for faces in front of a webcam, and quick to send

const camera = new Camera();
const list = new FaceList((index) => picture.mark(index));
const picture = new Picture((index) => list.choose(index));
let service = null;
let photo = null; // the shown file, or null
let drawn = null; // promise: whether this browser can show the photo
let running = null; // AbortController of the request in flight
let live = false;
let pressed = false; // whether a mouse button or a finger is down
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

/** Adapts the page to its service. */
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
  const needed = service.allows_anonymous ? "Optional: a key may allow more." : "Required.";
  byId("key-hint").textContent = `${needed} The key is kept only until you close this page.`;
  const choices = service.include.map((part) =>
    h("label", {}, h("input", { type: "checkbox", name: "include", value: part }), INCLUDE[part] ?? spaced(part)),
  );
  byId("include").replaceChildren(...choices);
  // A service that answers groups only has no options.
  show(byId("choices"), choices.length > 0);
}

/** Takes a new photo, from any source. */
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

/** Sends the present photo with the present options. */
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
  const chosen = {};
  for (const input of options.querySelectorAll('input[type="number"]')) {
    if (input.value !== input.defaultValue) chosen[input.name] = input.value;
  }
  if (byId("whole").checked) chosen.detect = "false";
  const parts = [...options.querySelectorAll('input[name="include"]:checked')].map((input) => input.value);
  if (parts.length) chosen.include = parts.join(",");
  return chosen;
}

function key() {
  return byId("key").value.trim();
}

function showPhotoAnswer(result, visible) {
  const { image } = result.answer;
  const size = `${image.width} x ${image.height} px`;
  const unseen = visible ? "" : " This browser cannot show this type of file. The boxes are still in the right places.";
  byId("caption").textContent = `${photo.name}, ${size}, ${bytes(photo.size)}.${unseen}`;
  if (!visible) picture.showBlank(image);
  showAnswer(result, photo, false);
}

/** `again`: the scene is that of the last answer. */
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
  // Written only when it changes: else screen readers would read it out for each frame.
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

/** `again` repeats what failed; omitted if that makes no sense. */
function showFailure(error, again) {
  if (!(error instanceof Failure)) console.error(error);
  const failure = error instanceof Failure ? error : new Failure("Something went wrong in this page.");
  const { message, detail, requestId } = failure;
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
      camera.stop(); // a photo arrived while the browser asked for permission
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
  // The pressed button is hidden now: the focus moves to the button in its place.
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

/** Sends one frame at a time. The next frame is taken when the last one is answered. */
async function goLive() {
  live = true;
  byId("camera-live").setAttribute("aria-pressed", "true");
  byId("caption").textContent = "Live: frames are sent to the service, one after the other.";
  const mine = begin("Live.");
  settle(mine);
  let again = false;
  while (mine === running) {
    try {
      // Browsers pause this while the page is hidden, so that nothing is sent.
      await new Promise((resolve) => requestAnimationFrame(resolve));
      const frame = await camera.take(picture.video, LIVE_PX, 0.85);
      const result = await askEmotions(service, frame, query(), key(), mine.signal);
      if (mine !== running) return;
      clearFailure();
      // A click is lost if its element is replaced between press and release.
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
    say("Selected. Press Ctrl+C to copy the text.");
  }
}
