// Names and codes of the service in plain words.

// What is wrong, and what helps. "again" is for what may pass by itself.
const PROBLEMS = {
  invalid_image: ["This file is not a picture that can be read.", "another"],
  invalid_video: ["This file is not a video that can be read.", "another"],
  unauthorized: ["This service requires a key.", "key"],
  forbidden: ["This key does not allow this request.", "key"],
  origin_not_allowed: ["Pages of this address may not call the service."],
  not_available_in_group_mode: ["This service answers groups only, so it does not take this option.", "reset"],
  not_found: ["The service does not have this address."],
  request_timeout: ["The file took too long to arrive.", "again", "another"],
  recording_not_done: ["The recording has no results yet.", "again"],
  image_too_large: ["This picture has too many pixels.", "another"],
  video_too_long: ["This video is too long.", "another"],
  image_too_complex: ["This picture takes too long to read.", "another"],
  video_too_complex: ["This video takes too long to read.", "another"],
  body_too_large: ["This file is too large.", "another"],
  unsupported_media_type: ["This kind of file is not supported.", "another"],
  invalid_request: ["The request is not valid.", "reset"],
  overloaded: ["The service is overloaded right now.", "again"],
  rate_limited: ["You have sent too much for now.", "again", "key"],
  internal: ["Something went wrong inside the service.", "again"],
  engine_unavailable: ["The model cannot be run right now.", "again"],
  host_busy: ["The service's machine is busy right now.", "again"],
  store_unavailable: ["The service cannot store this right now.", "again"],
  draining: ["The service is shutting down.", "again"],
  insufficient_storage: ["The service has no space for this recording right now.", "again"],
  deadline_exceeded: ["The answer took too long, so the service stopped.", "again", "another"],
};

export const HELP = {
  another: "Choose another file",
  again: "Send it again",
  key: "Enter a key",
  reset: "Reset the options",
  smaller: "Search for smaller faces",
  whole: "The photo is a crop of one face",
  camera: "Start the camera",
  live: "Go live again",
};

const REASONS = {
  low_confidence: "No emotion is clearly ahead of the others.",
  too_small: "The face is very small in the photo.",
  blurred: "The face is blurred.",
  too_dark: "The face is too dark.",
  too_bright: "The face is too bright.",
  low_contrast: "The face has little contrast.",
  occluded: "Something covers a part of the face.",
  no_clear_face: "This may not be a face.",
  turned_away: "The face is seen from the side.",
  tilted: "The face is tilted, and it could not be levelled.",
  unsteady: "The answer changes from frame to frame.",
};

export const INCLUDE = {
  landmarks: "Landmarks",
  quality: "Quality",
  experts: "Experts",
  engagement: "Engagement",
  heatmap: "Heatmap",
};

const QUALITY = {
  size_px: ["Size", (value) => `${number(value, 0)} px`],
  sharpness: ["Sharpness", (value) => significant(value)],
  brightness: ["Brightness", (value) => percent(value)],
  contrast: ["Contrast", (value) => number(value, 2)],
  occlusion: ["Looks covered", (value) => percent(value)],
  face_likeness: ["Looks like a face", (value) => percent(value)],
  yaw: ["Turned (yaw)", (value) => number(value, 2)],
  pitch: ["Nodding (pitch)", (value) => number(value, 2)],
  roll_degrees: ["Tilted (roll)", (value) => `${number(value, 1)}°`],
};

const LONG_TEXT = 200;

export const MIXTURES = { large_kernel: "Large kernels", fused: "Small kernels and backbone" };

/** A problem code as one sentence, without the details of the request. */
export function problemSentence(code, status) {
  return PROBLEMS[code]?.[0] ?? `The service refused this with status ${status}.`;
}

/** Names of what helps after a problem, for `HELP`. */
export function helpFor(code) {
  return PROBLEMS[code]?.slice(1) ?? ["again"];
}

export function reasonSentence(code) {
  return REASONS[code] ?? `${spaced(code)}.`;
}

/** How many people would name the emotion. */
export function agreementSentence({ agreement, emotion }) {
  const people = Math.round(agreement);
  return people < 1 ? `Fewer than 1 of 10 people would say ${emotion}.` : `About ${people} of 10 people would say ${emotion}.`;
}

/** Name and value of one measurement, as text. */
export function measured(name, value) {
  const plain = (found) => (typeof found === "number" ? significant(found) : String(found));
  const [label, format] = QUALITY[name] ?? [spaced(name), plain];
  return [label, format(value)];
}

/** `turned_away` as "Turned away". */
export function spaced(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function number(value, digits) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function significant(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

/** A probability as text. It is never rounded to 0 % or 100 %, nor to the threshold, if there is one. */
export function percent(share, threshold = null) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  const near = (share > 0 && share < 0.1) || (share > 0.99 && share < 1) || Math.abs(share - threshold) < 0.01;
  return `${number(100 * share, near ? 1 : 0)} %`;
}

/** Shortens long values for display: the base64 of a heatmap has thousands of letters. */
export function shortened(name, value) {
  const long = typeof value === "string" && value.length > LONG_TEXT;
  return long ? `${value.slice(0, 40)}… (${number(value.length, 0)} letters)` : value;
}

export function bytes(count) {
  return count < 1e6 ? `${number(count / 1e3, 0)} kB` : `${number(count / 1e6, 1)} MB`;
}

export function counted(count, noun, plural = `${noun}s`) {
  return `${count} ${count === 1 ? noun : plural}`;
}

/** Seconds as `0:07`. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const padded = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${padded(minutes)}:${padded(rest)}` : `${minutes}:${padded(rest)}`;
}

export function sentence(detail) {
  const text = detail.trim();
  if (!text) return "";
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}
