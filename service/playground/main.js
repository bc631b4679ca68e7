// Connects the parts of the page: it takes photos, a video or the camera, and shows the answer or the failure.

import { Failure, askEmotions, readCards, readService } from "./api.js";
import { modelCard } from "./card.js";
import { announce, byId, h, legendOf, say, show } from "./dom.js";
import { annotated, csvOf, download, rowsOf } from "./downloads.js";
import { FaceList } from "./faces.js";
import { isVideo, watchIntake } from "./intake.js";
import { Live } from "./live.js";
import { key, offerOptions, query, resetPrior, setDetection } from "./options.js";
import { Photos } from "./photos.js";
import { Picture } from "./picture.js";
import { Player } from "./player.js";
import { Problems } from "./problems.js";
import { SNIPPETS, requestOf } from "./snippets.js";
import { groupOf, statusOf, summaryOf, totalOf } from "./summary.js";
import { Timeline, tracksOf } from "./timeline.js";
import { timingsOf } from "./timings.js";
import { bytes, shortened } from "./words.js";

const SORTED_FACES = 5; // from this number on, sorting helps

const picture = new Picture((face) => list.choose(face));
const list = new FaceList((face) => picture.mark(face));
const photos = new Photos(ask, showState, showPhoto);
const problems = new Problems({
  another: () => byId("file").click(),
  again,
  key: () => byId("key").focus(),
  reset() {
    resetPrior();
    setOptions({});
  },
  smaller: () => setOptions({ min_face_px: 16, min_detection_confidence: 0.6 }),
  whole: () => setOptions({ whole: true }),
  camera: () => live.start(),
  live: () => live.go(),
});
const page = {
  picture,
  problems,
  timeline: new Timeline(),
  take,
  fail,
  clear: clearPage,
  say: setStatus,
  hasPhotos: () => photos.entries.length > 0 || player.isOpen,
  clearAnswer,
  showFrame,
  showSummary,
  showNothing,
};
const live = new Live(page);
const player = new Player(page, async () => {
  await introduced;
  return service;
});

let service = null; // what the service says about itself
let introduced = null; // promise: `service` is known
let drawn = null; // promise: whether this browser can show the photo
let faces = []; // of the answer, with their numbers
let size = null; // of the photo or the frame with these faces
let kind = null; // only these faces are shown; null: all
let pressed = false; // whether a mouse button or a finger is down
let json = null; // function: the answer as JSON, for copies and files

watchIntake(byId("photo"), take, fail);
byId("options").addEventListener("submit", (event) => event.preventDefault());
byId("options").addEventListener("change", optionsChanged);
byId("order").addEventListener("change", listFaces);
byId("languages").addEventListener("change", showSnippet);
byId("card").addEventListener("toggle", ({ target }) => target.open && showCard());
byId("save-picture").addEventListener("click", savePicture);
byId("save-json").addEventListener("click", () => download("answer.json", json(), "application/json"));
byId("save-csv").addEventListener("click", () => download("faces.csv", csvOf(rows()), "text/csv"));
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", copy);
// A scrub bar that is pressed moves the video.
addEventListener("pointerdown", ({ target }) => (pressed = target.id !== "scrub"));
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => (pressed = false));
start();

/** Reads what the service says about itself. */
function start() {
  introduced = introduce();
  introduced.then(() => problems.clear(), fail);
}

/** Adapts the page to its service. Throws a `Failure` if the service cannot be reached. */
async function introduce() {
  service = await readService();
  show(byId("docs"), service.shows_docs);
  offerOptions(service);
  byId("version").textContent = service.version;
  if (service.allows_anonymous) readModel();
}

async function ask(file, signal) {
  await introduced;
  return askEmotions(service, file, query(), key(), signal);
}

/** Repeats what failed. */
function again() {
  if (!service) start();
  if (player.isOpen) player.send();
  else if (photos.entries.length) photos.sendAgain();
}

/** Reads the threshold and the emotions of the model. Without a key, some services do not tell them. */
async function readModel() {
  try {
    const classifier = (await readCards(key())).find((card) => card.kind === "classifier");
    list.threshold = classifier.verdict.threshold;
    byId("labels").replaceChildren(...legendOf(classifier.labels));
    listFaces();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
  }
}

/** Takes new photos or a video, from any source. */
function take(files) {
  live.leave();
  player.leave();
  const found = files.filter((file) => !isVideo(file));
  if (found.length) photos.take(found);
  else player.take(files[0]);
}

function setOptions(options) {
  setDetection(options);
  optionsChanged();
}

function optionsChanged({ target } = {}) {
  if (target?.id === "key") readModel();
  if (target?.value === "own") return; // the shares follow
  if (live.isOpen) live.go();
  else if (player.isOpen) player.optionsChanged();
  else if (photos.entries.length) photos.send();
}

/** Shows another photo, of those that are chosen. */
function showPhoto(entry) {
  show(byId("drop"), false);
  show(byId("picture"));
  drawn = picture.showPhoto(entry.address);
  byId("caption").textContent = `${entry.file.name}, ${bytes(entry.file.size)}`;
  clearAnswer();
  showState(entry);
}

/** Shows the answer or the failure of a photo, if it is the shown one. */
async function showState(entry) {
  const { answered, entries } = photos;
  byId("total").textContent = entries.length > 1 ? totalOf(answered.map((one) => one.result.answer)) : "";
  if (entry !== photos.shown) return;
  const { result, failure } = entry;
  byId("faces").setAttribute("aria-busy", String(!result && !failure));
  if (failure) {
    clearAnswer();
    fail(failure);
    // Without a picture to show, the page offers its samples again.
    if (entries.length > 1 || (await drawn) || entry !== photos.shown) return;
    show(byId("picture"), false);
    show(byId("drop"));
    return;
  }
  problems.clear();
  if (!result) {
    setStatus("Looking for faces …");
    return;
  }
  const visible = await drawn;
  if (entry === photos.shown && entry.result === result) showAnswer(entry.file, result, visible);
}

function showAnswer(file, { answer, stages, roundTripMs }, visible) {
  size = answer.image;
  const unseen = visible ? "" : " This browser cannot show this type of file. The boxes are still in the right places.";
  byId("caption").textContent = `${file.name}, ${size.width} x ${size.height} px, ${bytes(file.size)}.${unseen}`;
  if (!visible) picture.showBlank(size);
  show(byId("save-picture"), visible);
  faces = (answer.faces ?? []).map((face, index) => ({ ...face, number: index + 1 }));
  list.clear();
  picture.showFaces(faces, size);
  byId("group").replaceChildren(...groupOf(answer.group));
  setStatus(statusOf(answer));
  if (answer.faces && !faces.length) problems.advise(["smaller", "whole", "another"]);
  chooseKind(null);
  byId("timings").replaceChildren(...timingsOf(stages, roundTripMs));
  showJson(answer, () => (photos.entries.length > 1 ? photos.answered.map(named) : answer));
  showSnippet();
  hideLegend();
}

function hideLegend() {
  for (const id of ["legend", "labels"]) show(byId(id), false);
}

const named = ({ file, result }) => ({ path: file.name, ...result.answer });

/** Shows the summary, the list and the boxes of the faces of this kind; null: of all. */
function chooseKind(chosen) {
  kind = chosen;
  byId("summary").replaceChildren(...(faces.length > 1 ? summaryOf(faces, kind, chooseKind) : []));
  show(byId("sorting"), faces.length >= SORTED_FACES);
  picture.mark(listFaces());
}

/** Returns the number of the first face in the list. */
function listFaces() {
  picture.only(kind);
  const order = live.isOpen || player.isOpen ? "number" : byId("order").value;
  return list.show(faces, { order, kind, crop: (face) => picture.crop(face, size) });
}

/** `all()` returns what is copied and saved. */
function showJson(answer, all) {
  json = () => JSON.stringify(all(), null, 2);
  byId("json").textContent = JSON.stringify(answer, shortened, 2);
  show(byId("answer"));
}

function showSnippet() {
  const entry = photos.shown;
  show(byId("program"), Boolean(entry?.result));
  if (!entry?.result) return;
  const language = document.querySelector('[name="language"]:checked').value;
  byId("snippet").textContent = SNIPPETS[language](requestOf(service, entry.file, query(), key(), entry.result.answer));
}

function clearAnswer() {
  faces = [];
  kind = null;
  picture.showFaces([]);
  list.clear();
  for (const id of ["group", "summary"]) byId(id).replaceChildren();
  for (const id of ["answer", "sorting"]) show(byId(id), false);
}

function fail(error) {
  problems.show(error);
  setStatus("No answer.");
}

/** Shows one frame of the camera or of a video. */
function showFrame(message, followed) {
  // A click is lost if its element is replaced between press and release.
  if (pressed) return;
  faces = followed;
  size = message.image;
  picture.showFaces(faces, size);
  byId("group").replaceChildren(...groupOf(message.group));
  setStatus(statusOf({ ...message, faces }));
  listFaces();
  hideLegend();
}

/** Shows what a stream of the camera has seen. */
function showSummary(summary) {
  clearAnswer();
  if (summary.tracks) byId("summary").replaceChildren(tracksOf(summary));
  show(byId("save-picture"), false);
  const { answered, dropped, failed } = summary;
  byId("timings").replaceChildren(h("p", {}, `${answered} frames answered, ${dropped} dropped, ${failed} failed.`));
  showJson(summary, () => ({ frames: live.frames, summary }));
  showSnippet();
}

/** The page without a photo. */
function showNothing() {
  picture.clear();
  clearAnswer();
  show(byId("picture"), false);
  show(byId("drop"));
  setStatus("No photo yet.");
}

/** Leaves the photos and the video, for the camera or another video. */
function clearPage() {
  player.leave();
  photos.clear();
  byId("total").textContent = "";
  clearAnswer();
  problems.clear();
}

function setStatus(text) {
  announce(byId("status"), text);
}

/** What is shown, as rows of a table. */
function rows() {
  if (live.cameraIsOn) return live.frames.flatMap(rowsOfFrame);
  return photos.entries.flatMap(({ file, result, failure }) =>
    result ? rowsOf({ path: file.name }, result.answer) : [{ path: file.name, problem: failure?.code ?? "" }],
  );
}

function rowsOfFrame({ type, frame, time_s, dropped, ...answer }) {
  return rowsOf({ frame, time_s, dropped }, answer);
}

async function savePicture() {
  const { file, result } = photos.shown;
  download(`${file.name.replace(/\.\w+$/, "")}-faces.jpg`, await annotated(picture.image, result.answer));
}

async function showCard() {
  try {
    byId("card-text").replaceChildren(...modelCard(await readCards(key())));
  } catch (error) {
    const sentence = error instanceof Failure ? error.message : "The card cannot be read.";
    byId("card-text").replaceChildren(h("p", {}, sentence));
  }
}

async function copy({ currentTarget }) {
  const shown = byId(currentTarget.dataset.of);
  try {
    await navigator.clipboard.writeText(shown.id === "json" ? json() : shown.textContent);
    say("Copied.");
    currentTarget.classList.add("done");
    setTimeout(() => currentTarget.classList.remove("done"), 1500);
  } catch {
    // Without HTTPS a page may not write to the clipboard.
    getSelection().selectAllChildren(shown);
    say("Selected. Press Ctrl+C to copy the text.");
  }
}
