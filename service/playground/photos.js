// The chosen photos: sends each to the service, and shows several as a strip.

import { byId, button, h, show } from "./dom.js";

const AT_A_TIME = 2;

export class Photos {
  entries = [];
  shown = null;
  #running = null; // AbortController of the requests in flight

  /**
   * `ask(file, signal)` returns the answer of the service. `changed(entry)` is called for each new state of a photo,
   * `chosen(entry)` when another photo is to be shown.
   */
  constructor(ask, changed, chosen) {
    this.ask = ask;
    this.changed = changed;
    this.chosen = chosen;
    this.strip = byId("strip");
  }

  /** Replaces all photos. */
  take(files) {
    this.clear();
    this.entries = files.map((file) => ({ file, address: URL.createObjectURL(file) }));
    this.strip.replaceChildren(...this.entries.map((entry) => this.#thumbnail(entry)));
    show(this.strip, files.length > 1);
    this.#choose(this.entries[0]);
    this.send();
  }

  clear() {
    this.#running?.abort();
    for (const { address } of this.entries) URL.revokeObjectURL(address);
    this.entries = [];
    this.shown = null;
    show(this.strip, false);
  }

  /** Sends all photos, or only `entries`. What is in flight is cancelled. */
  async send(entries = this.entries) {
    this.#running?.abort();
    const { signal } = (this.#running = new AbortController());
    for (const entry of entries) this.#set(entry, { result: null, failure: null });
    const waiting = [...entries];
    const work = async () => {
      while (waiting.length && !signal.aborted) await this.#answer(waiting.shift(), waiting, signal);
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, work));
  }

  /** Sends the photos that have no answer. */
  sendAgain() {
    return this.send(this.entries.filter((entry) => !entry.result));
  }

  get answered() {
    return this.entries.filter((entry) => entry.result);
  }

  async #answer(entry, waiting, signal) {
    try {
      const result = await this.ask(entry.file, signal);
      if (!signal.aborted) this.#set(entry, { result });
    } catch (failure) {
      if (signal.aborted) return;
      // What is wrong with the key or with the service is wrong for the other photos too.
      const failed = failure.ofPhoto ? [entry] : [entry, ...waiting.splice(0)];
      for (const each of failed) this.#set(each, { failure });
    }
  }

  #set(entry, state) {
    Object.assign(entry, state);
    const item = this.strip.children[this.entries.indexOf(entry)];
    item.dataset.state = entry.result ? "done" : entry.failure ? "failed" : "waiting";
    item.querySelector("img").alt = `${entry.file.name}${entry.failure ? ", no answer" : ""}`;
    this.changed(entry);
  }

  #thumbnail(entry) {
    const { name } = entry.file;
    const choose = button({ title: name }, () => this.#choose(entry), h("img", { src: entry.address, alt: name }));
    return h("li", {}, choose);
  }

  #choose(entry) {
    this.shown = entry;
    [...this.strip.children].forEach((item, index) => {
      item.firstChild.setAttribute("aria-current", this.entries[index] === entry);
    });
    this.chosen(entry);
  }
}
