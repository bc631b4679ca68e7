// Calls of the service. Addresses are relative to the page, so that the page also works below a path of a proxy.

import { bytes, counted, helpFor, problemSentence, sentence } from "./words.js";

const TYPES_BY_ENDING = {
  avif: "image/avif",
  heic: "image/heic",
  heif: "image/heif",
  tif: "image/tiff",
  tiff: "image/tiff",
};
// Extra time after the service's own deadline, for a service that does not answer at all.
const PATIENCE_S = 5;

/** Why there is no answer, in sentences. */
export class Failure extends Error {
  detail = "";
  requestId = "";
  retryAfterS = null;
  code = "";
  help = ["again"]; // names of what helps
  ofPhoto = false; // whether another photo may be answered

  constructor(message, more = {}) {
    super(message);
    Object.assign(this, more);
  }
}

export const at = (path) => new URL(path, document.baseURI);

/** What the service says about itself: limits, kinds of files, whether it asks for a key. */
export async function readService() {
  return readJson(await reach(at("playground/service.json"), {}));
}

/** The cards of the models that are served. */
export async function readCards(key) {
  const answer = await reach(at("v1/models"), { headers: keyHeader(key) });
  if (!answer.ok) throw await failureOf(answer);
  return (await readJson(answer)).models;
}

/**
 * Sends a photo. Returns the answer, the ms of each stage, and the ms of the round trip.
 * Throws a `Failure`, or an AbortError after `signal`.
 */
export async function askEmotions(service, photo, query, key, signal) {
  if (photo.size > service.body_limit_bytes) {
    const limit = bytes(service.body_limit_bytes);
    const help = { help: helpFor("body_too_large"), ofPhoto: true };
    throw new Failure(`This file has ${bytes(photo.size)}; at most ${limit} are accepted.`, help);
  }
  const started = performance.now();
  const patience = AbortSignal.timeout(1e3 * (service.timeout_s + PATIENCE_S));
  const answer = await reach(
    emotionsAddress(query),
    { method: "POST", body: photo, headers: { "Content-Type": mediaType(service, photo), ...keyHeader(key) } },
    signal,
    patience,
  );
  if (!answer.ok) throw await failureOf(answer);
  return {
    answer: await readJson(answer),
    stages: serverTiming(answer.headers.get("Server-Timing") ?? ""),
    roundTripMs: performance.now() - started,
  };
}

export function emotionsAddress(query) {
  const address = at("v1/emotions");
  address.search = new URLSearchParams(query);
  return address;
}

/** `fetch`. Throws a `Failure` without an answer, or an AbortError after `signal`. */
export async function reach(address, request, signal, patience) {
  try {
    return await fetch(address, {
      ...request,
      cache: "no-store",
      signal: AbortSignal.any([signal, patience].filter(Boolean)),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    if (patience?.aborted) {
      const sentence = "The service did not answer in time. A smaller photo may help.";
      throw new Failure(sentence, { help: helpFor("deadline_exceeded") });
    }
    throw unreachable();
  }
}

export function unreachable() {
  return new Failure(
    navigator.onLine
      ? "The service cannot be reached. Check that it is running."
      : "You are offline, and the service is on another machine.",
  );
}

export async function readJson(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The answer was cut off, or is not from this service.");
  }
}

/** The failure in an answer with an error status. */
export async function failureOf(answer) {
  const problem = await answer.json().catch(() => ({}));
  const header = Number.parseInt(answer.headers.get("Retry-After") ?? "", 10);
  const retryAfterS = Number.isNaN(header) ? null : header;
  const first = problemSentence(problem.code, answer.status);
  const wait = retryAfterS === null ? "" : ` Wait ${duration(retryAfterS)}.`;
  return new Failure(first + wait, {
    detail: sentence(problem.detail ?? ""),
    requestId: problem.request_id ?? answer.headers.get("X-Request-ID") ?? "",
    code: problem.code ?? "",
    retryAfterS,
    help: helpFor(problem.code),
    ofPhoto: helpFor(problem.code).includes("another"),
  });
}

export function duration(seconds) {
  if (seconds < 120) return counted(seconds, "second");
  return seconds < 7200 ? counted(Math.ceil(seconds / 60), "minute") : counted(Math.ceil(seconds / 3600), "hour");
}

function serverTiming(header) {
  const found = [...header.matchAll(/([\w-]+);dur=([\d.]+)/g)];
  return Object.fromEntries(found.map(([, stage, ms]) => [stage, Number(ms)]));
}

/** The type of a file for `Content-Type`. */
export function mediaType(service, photo) {
  if (service.media_types.includes(photo.type)) return photo.type;
  // Browsers do not know all types. The service reads the type from the bytes, so any accepted type works.
  const ending = photo.name.split(".").pop().toLowerCase();
  return TYPES_BY_ENDING[ending] ?? "image/jpeg";
}

export const keyHeader = (key) => (key ? { "X-API-Key": key } : {});
