// Photos and videos that are dropped on the page, pasted into it, or chosen.

import { Failure, reach } from "./api.js";
import { byId } from "./dom.js";

/** Calls `take(files)` with at least one file, or `refuse(failure)`. `zone` is highlighted during a drag. */
export function watchIntake(zone, take, refuse) {
  let depth = 0; // a drag enters and leaves each element that it passes
  const light = (change) => {
    depth = Math.max(0, depth + change);
    zone.classList.toggle("over", depth > 0);
  };
  const pass = (files, missing) => (files.length ? take(files) : refuse(new Failure(missing, { help: ["another"] })));
  document.addEventListener("dragenter", () => light(1));
  document.addEventListener("dragleave", () => light(-1));
  // Without this the browser would leave the page and open the file.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    light(-depth);
    pass(pictures(event.dataTransfer), "This is not a file. Save the picture first, then drop it here.");
  });
  document.addEventListener("paste", (event) => {
    const files = pictures(event.clipboardData);
    if (files.length || !event.target.closest?.("input")) pass(files, "There is no picture in the clipboard.");
  });
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files.length) take([...target.files]);
    target.value = ""; // so that the same file can be chosen again
  });
  byId("samples").addEventListener("click", async ({ target }) => {
    const image = target.closest("button")?.querySelector("img");
    if (!image) return;
    try {
      const content = await (await reach(image.src, {})).blob();
      take([new File([content], image.src.split("/").pop(), { type: content.type })]);
    } catch (error) {
      refuse(error);
    }
  });
}

/** Whether the file is a video, by its type. Browsers do not know all types. */
export function isVideo({ name, type }) {
  return type.startsWith("video/") || (!type && /\.(mkv|avi|m2?ts|flv|wmv|vob)$/i.test(name));
}

/** The pictures; without one, the first file: a video, or the service then says what is wrong with it. */
function pictures(transfer) {
  const found = [...(transfer?.files ?? [])];
  const chosen = found.filter((file) => file.type.startsWith("image/"));
  return chosen.length ? chosen : found.slice(0, 1);
}
