/** A turn's text as it grows, with a mark wherever the agent was silent for long. */

import { el, follower } from "../../shared/dom.js";
import { took } from "../format.js";
import { summaryOf } from "./timeline.js";

const KEPT = 20_000; // pieces and notes
const NOTES = /^(tool\.|approval\.|message\.replaced|turn\.(started|stalled|cancelling|ended))/;

/** The text; long silences are those of `threshold` seconds and more. */
export class StreamText {
  #items = []; // pieces, and the words of what came between them
  #threshold;
  #flow = el("div.flow");
  #scroller = el("div.flow-scroller", { tabIndex: 0, role: "region", ariaLabel: "Text" }, this.#flow);
  #follow = follower(this.#scroller);
  #last = null; // the element that the next piece is added to
  #lastId = null;

  constructor(threshold) {
    this.#threshold = threshold;
    this.element = this.#scroller;
  }

  /** Take a record, and the piece that it brought if it did. */
  take(record, piece) {
    const item = piece ?? (NOTES.test(record.event) ? { note: `${record.event} · ${summaryOf(record)}` } : null);
    if (!item) return;
    this.#items.push(item);
    if (this.#items.length > KEPT) {
      this.#items.splice(0, KEPT / 10);
      this.#rebuild();
    } else this.#append(item);
    this.#follow();
  }

  /** Mark silences of so many seconds and more. */
  set threshold(seconds) {
    this.#threshold = seconds;
    this.#rebuild();
  }

  /** Show where a piece begins. */
  reveal(seq) {
    const mark = this.#flow.querySelector(`mark[data-seq="${Number(seq)}"]`);
    mark?.scrollIntoView({ block: "center" });
    mark?.focus({ preventScroll: true });
  }

  #rebuild() {
    this.#flow.replaceChildren();
    this.#last = this.#lastId = null;
    for (const item of this.#items) this.#append(item);
  }

  #append(item) {
    if (item.note !== undefined) {
      this.#flow.append(el("p.between", {}, item.note));
      this.#last = this.#lastId = null;
      return;
    }
    if (this.#lastId !== item.messageId) {
      this.#last = el(item.thought ? "p.piece.thought" : "p.piece");
      this.#lastId = item.messageId;
      this.#flow.append(this.#last);
    }
    if (item.gap >= this.#threshold) this.#last.append(gapMark(item));
    const end = this.#last.lastChild;
    if (end instanceof Text) end.appendData(item.text);
    else this.#last.append(item.text);
  }
}

/** The mark of a silence: whose it was, and how long. */
function gapMark({ gap, asked, seq }) {
  return el("mark.gap", { tabIndex: -1, data: { seq } }, ` ${took(gap)}${asked ? ", a person was asked" : ""} `);
}
