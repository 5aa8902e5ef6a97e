// Logging in: an access token is exchanged for a cookie that no script can read, and is kept nowhere else.

import { post, said } from "../api.js";
import { connection, start } from "../live.js";
import { Icon } from "../parts/icons.js";
import { html, useState } from "../ui.js";

export function Login() {
  const [refused, setRefused] = useState("");
  const [busy, setBusy] = useState(false);
  /** @param {SubmitEvent} event */
  const login = async (event) => {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.target);
    setBusy(true);
    try {
      await post("login", { token: String(new FormData(form).get("token")).trim() });
      form.reset();
      await start();
    } catch (error) {
      setRefused(said(error));
    }
    setBusy(false);
  };
  const { why } = connection.value;
  return html`<main class="frame" id="main"><div class="card login"><form class="stack" onSubmit=${login}>
    <h1><${Icon} name="lock" /> Log in</h1>
    <p>This server wants an access token. One that allows <code>read:*</code> shows all queues; what it does not allow is greyed here.</p>
    ${why && !why.startsWith("this needs") && html`<p class="soft">${why}.</p>`}
    <label class="field"><span>Access token</span><input name="token" type="password" autocomplete="off" spellcheck=${false} required autofocus /></label>
    ${refused && html`<p class="wrong" role="alert" id="refused">${refused}</p>`}
    <button class="button main" disabled=${busy}>Log in</button>
  </form></div></main>`;
}

export async function logout() {
  await post("logout");
  await start();
}

/** Somebody is logged in who may look at nothing. */
export function Forbidden() {
  const { why } = connection.value;
  return html`<main class="frame" id="main"><div class="card login stack">
    <h1><${Icon} name="lock" /> Nothing to show</h1>
    <p>${why.charAt(0).toUpperCase()}${why.slice(1)}. A dashboard needs <code>read</code> of a queue.</p>
    <button type="button" class="button main" onClick=${logout}>Log in with another token</button>
  </div></main>`;
}
