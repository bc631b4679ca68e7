// The camera's frames over `WS /v1/stream`. A frame is sent after the answer to the last one.

import { Failure, failureOf, reach } from "./api.js";
import { helpFor, problemSentence, sentence } from "./words.js";

const INTERVAL_MS = 100;
const CLOSED = {
  1001: "The service is shutting down.",
  1008: "The key is no longer valid.",
  4408: "The stream was closed, because no frames were sent while the page was hidden.",
};

export class Stream {
  #socket;
  #take = null; // waits for the next message
  #end;
  #ending = false;
  #ended = new Promise((resolve) => (this.#end = resolve));

  constructor(query, key) {
    this.address = new URL("v1/stream", document.baseURI);
    this.address.search = new URLSearchParams(query);
    this.key = key;
  }

  /**
   * Sends what `capture()` returns until `end` is called. `show(message, ms)` gets each answer and the time that it
   * took, `refuse(failure)` each problem of a frame. Returns the summary. Throws a `Failure` if the stream cannot be
   * opened or breaks.
   */
  async run(capture, show, refuse) {
    await this.#open();
    for (;;) {
      // Browsers pause this while the page is hidden, so that nothing is sent.
      await new Promise((resolve) => requestAnimationFrame(resolve));
      if (this.#ending) return this.#summary();
      const started = performance.now();
      this.#socket.send(await capture());
      const message = await this.#next();
      if (message.type === "summary") return message;
      const spentMs = performance.now() - started;
      if (message.type === "frame") show(message, spentMs);
      else refuse(problemOf(message));
      const waitMs = Math.max(INTERVAL_MS - spentMs, 1e3 * (message.retry_after_s ?? 0));
      await Promise.race([new Promise((resolve) => setTimeout(resolve, waitMs)), this.#ended]);
    }
  }

  /** Ends the stream; `run` then returns its summary. */
  end() {
    this.#ending = true;
    this.#end();
  }

  /** Ends the stream without a summary. */
  close() {
    this.#socket?.close();
    this.end();
  }

  async #open() {
    const address = new URL(this.address);
    address.protocol = address.protocol.replace("http", "ws");
    this.#socket = new WebSocket(address, ["expressnet.v1", ...(this.key ? [`key.${this.key}`] : [])]);
    const opened = await new Promise((resolve) => {
      this.#socket.onopen = () => resolve(true);
      this.#socket.onclose = () => resolve(false);
    });
    if (!opened) throw await this.#refusal();
    this.#socket.onmessage = ({ data }) => this.#take?.resolve(JSON.parse(data));
    this.#socket.onclose = ({ code, reason }) => {
      this.closed = new Failure(CLOSED[code] ?? "The connection to the service was lost.", {
        detail: sentence(reason),
        code: code === 1008 ? "unauthorized" : "",
        help: code === 1008 ? ["key"] : ["live"],
      });
      this.#take?.reject(this.closed);
    };
  }

  #next() {
    if (this.closed) throw this.closed;
    return new Promise((resolve, reject) => (this.#take = { resolve, reject }));
  }

  #summary() {
    this.#socket.send('{"type": "end"}');
    return this.#next();
  }

  /** A browser hides from a page why a WebSocket was refused. A plain request gets the same error. */
  async #refusal() {
    const headers = this.key ? { "X-API-Key": this.key } : {};
    const failure = await failureOf(await reach(this.address, { headers }));
    if (failure.code !== "upgrade_required") return failure;
    return new Failure("No stream could be opened.", { help: ["live"] });
  }
}

function problemOf({ problem, retry_after_s }) {
  const { code, status, detail, request_id } = problem;
  return new Failure(problemSentence(code, status), {
    detail: sentence(detail),
    requestId: request_id,
    code,
    help: helpFor(code).filter((name) => name === "key"), // the stream goes on by itself
    retryAfterS: retry_after_s,
  });
}

/** A face over time, in the form of a face of a photo. */
export function smoothed(face) {
  const unsteady = face.smoothed.verdict === "uncertain" && !face.reasons;
  // The agreement is that of one frame, which may show another emotion.
  return { ...face, ...face.smoothed, agreement: undefined, reasons: unsteady ? ["unsteady"] : face.reasons };
}
