/** The card that asks who one is, and the one that says what one may not see. */

import { el } from "../shared/dom.js";
import { keep } from "../shared/login.js";

const COMMAND = "broker gentoken --user me --scope api --scope admin";

/** Ask for a token; resolves once there is one. */
export function signIn(root, why) {
  const field = el("input", {
    type: "password",
    name: "token",
    required: true,
    autocomplete: "off",
    spellcheck: false,
  });
  const wrong = el("p.refusal", { role: "alert" }, why);
  const form = el(
    "form.stack.card.sign-in",
    {},
    el("p", {}, "This broker wants to know who you are."),
    wrong,
    el("label", {}, "Token", field),
    el("button.primary", {}, "Sign in"),
    el("p.hint", {}, "Whoever runs the broker makes one where its configuration is:"),
    el("code.command", {}, COMMAND),
    el("p.hint", {}, "The token stays in this tab and ends with it."),
  );
  root.replaceChildren(form);
  field.focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      if (!keep(field.value)) {
        wrong.textContent = "That is no token: those have no spaces and no quotes.";
        return;
      }
      root.replaceChildren();
      resolve();
    };
  });
}

/** Say which scope is missing, and what one can do. */
export function fallShort(root, { title, scope }, { user }) {
  const command = `broker gentoken --user ${/^[\w.-]+$/.test(user ?? "") ? user : "me"} --scope api --scope admin`;
  root.replaceChildren(
    el(
      "section.card.sign-in",
      { ariaLabel: "Not for this token" },
      el("p", {}, `${title} is for those whose token has the scope “${scope}”. Yours has not.`),
      el("p.hint", {}, "Whoever runs the broker makes one that has it, where its configuration is:"),
      el("code.command", {}, command),
      el(
        "p",
        {},
        "What you have is good for the ",
        el("a", { href: "#panel=client" }, "test client"),
        " and the ",
        el("a", { href: "chat" }, "chat page"),
        ".",
      ),
    ),
  );
}
