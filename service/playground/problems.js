// Failures, each with what helps.

import { Failure } from "./api.js";
import { byId, button, h } from "./dom.js";
import { HELP } from "./words.js";

const LONGEST_COUNTDOWN_S = 120;

/** `actions`: what each name of `HELP` does. */
export class Problems {
  constructor(actions) {
    this.actions = actions;
    this.place = byId("problem");
  }

  show(error) {
    if (!(error instanceof Failure)) console.error(error);
    const failure = error instanceof Failure ? error : new Failure("Something went wrong in this page.", { help: [] });
    const { message, detail, requestId, retryAfterS, help } = failure;
    const parts = [
      h("p", { class: "lead" }, message),
      detail && h("p", {}, detail),
      this.#buttons(help, retryAfterS ?? 0),
      requestId && h("p", { class: "hint" }, `Request ${requestId}`),
    ];
    this.clear();
    this.place.append(h("div", { class: "problem" }, ...parts.filter(Boolean)));
  }

  /** Offers what may help where nothing failed. */
  advise(help) {
    byId("advice").replaceChildren(this.#buttons(help, 0));
  }

  clear() {
    for (const place of [this.place, byId("advice")]) place.replaceChildren();
  }

  #buttons(help, waitS) {
    const possible = help.filter((name) => name !== "again" || waitS <= LONGEST_COUNTDOWN_S);
    const buttons = possible.map((name) => {
      const one = button({ "data-help": name }, this.actions[name], HELP[name]);
      if (name === "again" && waitS) countDown(one, waitS);
      return one;
    });
    return h("div", { class: "help" }, ...buttons);
  }
}

function countDown(one, seconds) {
  const text = one.textContent;
  const tick = () => {
    one.disabled = seconds > 0;
    one.textContent = seconds > 0 ? `${text} in ${seconds} s` : text;
    if (seconds-- > 0 && one.parentElement) setTimeout(tick, 1000);
  };
  queueMicrotask(tick); // once the button has its place
}
