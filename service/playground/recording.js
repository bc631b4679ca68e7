// One video at the service: its upload, its state, its results, its end.

import { Failure, at, failureOf, keyHeader, reach, readJson, unreachable } from "./api.js";
import { bytes, helpFor, problemSentence, sentence } from "./words.js";

const LOST = "The connection to the service was lost.";

export class Recording {
  #address = null; // once the service has the video
  #final = false;
  #left = new AbortController();

  constructor(service, file, query, key) {
    Object.assign(this, { service, file, query, key });
  }

  /**
   * Sends the video and waits for the end of the analysis. `sent(share)` is called during the upload, `changed(state)`
   * during the analysis. Returns the last state. Throws a `Failure`, or an AbortError after `delete`.
   */
  async analyse(sent, changed) {
    this.#check();
    const accepted = await this.#upload(sent);
    if (!accepted.ok) throw await failureOf(accepted);
    this.#address = at(`v1/recordings/${(await readJson(accepted)).id}`);
    const last = await this.#watch(changed);
    this.#final = true;
    return last;
  }

  /** A result by the end of its address. */
  async result(name) {
    const answer = await reach(`${this.#address}/${name}`, { headers: keyHeader(this.key) }, this.#left.signal);
    if (!answer.ok) throw await failureOf(answer);
    return answer;
  }

  /** Cancels what is in flight, and deletes the recording at the service. */
  delete() {
    this.#left.abort();
    // The first call cancels the work. The second one removes its results. Both arrive when the page is closed, too.
    const calls = this.#address ? (this.#final ? 1 : 2) : 0;
    for (let call = 0; call < calls; call++) {
      const request = { method: "DELETE", headers: keyHeader(this.key), keepalive: true };
      fetch(this.#address, request).catch(() => {});
    }
    this.#address = null;
  }

  /** Refuses what the service would refuse: a browser hides the answer to an upload that is not read to its end. */
  #check() {
    const { allows_anonymous, recording_limit_bytes: limit } = this.service;
    if (!allows_anonymous && !this.key) {
      throw new Failure(problemSentence("unauthorized"), { code: "unauthorized", help: helpFor("unauthorized") });
    }
    if (this.file.size > limit) {
      const message = `This file has ${bytes(this.file.size)}; at most ${bytes(limit)} are accepted.`;
      throw new Failure(message, { help: helpFor("body_too_large") });
    }
  }

  #upload(sent) {
    const { signal } = this.#left;
    const address = at("v1/recordings");
    address.search = new URLSearchParams(this.query);
    const type = this.file.type.startsWith("video/") ? this.file.type : "application/octet-stream";
    // `fetch` does not say how much is sent.
    const request = new XMLHttpRequest();
    return new Promise((resolve, reject) => {
      request.upload.onprogress = ({ loaded, total }) => sent(loaded / total);
      request.onload = () => resolve(answerOf(request));
      request.onerror = () => reject(unreachable());
      signal.addEventListener("abort", () => {
        request.abort();
        reject(signal.reason);
      });
      request.open("POST", address);
      for (const [name, value] of Object.entries({ "Content-Type": type, ...keyHeader(this.key) })) {
        request.setRequestHeader(name, value);
      }
      request.send(this.file);
    });
  }

  /** Reads the events. `EventSource` would send no key. */
  async #watch(changed) {
    const reader = (await this.result("events")).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let state = null;
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw this.#left.signal.aborted ? error : new Failure(LOST);
      });
      if (done) break;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines.filter((one) => one.startsWith("data: "))) {
        state = JSON.parse(line.slice("data: ".length));
        changed(state);
      }
    }
    if (!state || ["queued", "working"].includes(state.state)) throw new Failure(LOST);
    return state;
  }
}

/** The answer to an XMLHttpRequest, in the form of `fetch`. */
function answerOf(request) {
  const headers = new Headers();
  for (const name of ["Retry-After", "X-Request-ID"]) {
    const value = request.getResponseHeader(name);
    if (value !== null) headers.set(name, value);
  }
  return new Response(request.response, { status: request.status, headers });
}

/** Why a recording has ended early; null if it has not. */
export function failureOfState({ state, problem }) {
  if (state === "done") return null;
  if (!problem) return new Failure(`The recording was ${state}.`);
  const { code, status, detail, request_id } = problem;
  const more = { detail: sentence(detail), requestId: request_id, code, help: helpFor(code) };
  return new Failure(problemSentence(code, status), more);
}
