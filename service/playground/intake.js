// Photos that are dropped on the page or pasted into it.

import { Failure } from "./api.js";

/** Calls `take(file)` with a photo, or `refuse(failure)` without one. `zone` is highlighted during a drag. */
export function watchIntake(zone, take, refuse) {
  let depth = 0; // a drag enters and leaves each element that it passes
  const light = (change) => {
    depth = Math.max(0, depth + change);
    zone.classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", () => light(1));
  document.addEventListener("dragleave", () => light(-1));
  // Without this the browser would leave the page and open the file.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    light(-depth);
    const file = firstFile(event.dataTransfer);
    if (file) take(file);
    else refuse(new Failure("This is not a file. Save the picture first, then drop it here."));
  });
  document.addEventListener("paste", (event) => {
    const file = firstFile(event.clipboardData);
    if (file) take(file);
    else if (!event.target.closest?.("input")) refuse(new Failure("There is no picture in the clipboard."));
  });
}

/** The first picture, else the first file: the service then says what is wrong with it. */
function firstFile(transfer) {
  const found = [...(transfer?.files ?? [])];
  return found.find((file) => file.type.startsWith("image/")) ?? found[0];
}
