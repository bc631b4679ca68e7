// The camera of this device, and pictures out of it.

import { Failure } from "./api.js";

const FAILURES = {
  NotAllowedError: "The camera was not allowed. Allow it beside the page's address, then try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program, or does not answer.",
};

export class Camera {
  stream = null;

  /** Throws a `Failure` when there is none, or nobody allows it. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Failure("A browser gives the camera only to pages of this machine and to those that come by HTTPS.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    } catch (error) {
      throw new Failure(FAILURES[error.name] ?? "The camera could not be started.");
    }
    return this.stream;
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
  }

  /** What `video` shows now as a JPEG file, no side longer than `longestPx`. */
  take(video, longestPx, quality) {
    const scale = Math.min(1, longestPx / Math.max(video.videoWidth, video.videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => {
      canvas.toBlob((blob) => resolve(new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", quality);
    });
  }
}
