// The camera of this device, and its pictures.

import { Failure } from "./api.js";

const FAILURES = {
  NotAllowedError: ["The browser blocks the camera. Allow the camera beside the page's address.", "camera", "another"],
  NotFoundError: ["No camera was found.", "another"],
  NotReadableError: ["The camera is in use by another program, or does not answer.", "camera", "another"],
};

export class Camera {
  stream = null;

  /** Throws a `Failure` if the device has no camera or the user does not allow it. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      const sentence = "Browsers allow the camera only on pages over HTTPS, or on pages from this machine.";
      throw new Failure(sentence, { help: ["another"] });
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    } catch (error) {
      const [sentence, ...help] = FAILURES[error.name] ?? ["The camera could not be started.", "camera", "another"];
      throw new Failure(sentence, { help });
    }
    return this.stream;
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
  }

  /** The present picture of `video` as a JPEG file. Its longer side is at most `longestPx`. */
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
