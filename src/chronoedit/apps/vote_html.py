"""The page on which people vote: one file without addresses of others, for a desk and for a phone."""

from __future__ import annotations

import html

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6067; --line: #d5d8dc; --paper: #fff; --card: #f5f6f8;
  --mark: #0b5cad }
@media (prefers-color-scheme: dark) { :root { --ink: #eceef0; --soft: #a9afb6; --line: #3a3f45; --paper: #14171a;
  --card: #1f2429; --mark: #7ab8f5 } }
* { box-sizing: border-box }
[hidden] { display: none !important }
body { margin: 0 auto; max-width: 1400px; padding: 12px 16px 0; background: var(--paper); color: var(--ink);
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere }
header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; justify-content: space-between }
h1 { font-size: 17px; margin: 0 }
header span, .hint, figcaption { color: var(--soft); font-size: 14px }
progress { width: 100%; height: 6px; margin: 8px 0; accent-color: var(--mark) }
#prompt { font-size: 18px; margin: 0 0 10px; max-width: 80ch }
.pictures { display: grid; gap: 12px; grid-template-columns: repeat(3, 1fr) }
figure { margin: 0; min-width: 0 }
figcaption { margin: 0 0 4px }
figure button { display: block; width: 100%; padding: 0; cursor: zoom-in; overflow: hidden }
figure img { display: block; width: 100%; height: min(56vh, 32vw); object-fit: contain }
button, input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 14px }
button { cursor: pointer }
button[aria-disabled=true] { opacity: .5; cursor: default }
button:not([aria-disabled=true]):hover { border-color: var(--mark) }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 2px }
.choices { position: sticky; bottom: 0; display: grid; gap: 10px; padding: 12px 0; background: var(--paper);
  grid-template-columns: 1fr 1.2fr 1.2fr 1.2fr }
.choices button { min-height: 52px }
kbd { font: inherit; color: var(--soft) }
#message { color: #b3261e; min-height: 1.4em; margin: 4px 0 }
@media (prefers-color-scheme: dark) { #message { color: #ffb4ab } }
form { display: flex; flex-wrap: wrap; gap: 10px; align-items: center; margin: 16px 0 }
dialog { border: 0; padding: 0; background: transparent; max-width: 100vw; max-height: 100vh }
dialog::backdrop { background: rgb(0 0 0 / .8) }
dialog img { display: block; max-width: 98vw; max-height: 96vh; min-width: min(90vw, 90vh); object-fit: contain;
  cursor: zoom-out }
@media (max-width: 700px) {
  .pictures { grid-template-columns: 1fr 1fr; gap: 8px }
  .pictures figure:first-child { grid-column: 1 / 3 }
  .pictures figure:first-child img { height: 26vh }
  figure img { height: min(34vh, 46vw) }
  .choices { grid-template-columns: 1fr 1fr 1fr; gap: 8px }
  #undo { grid-column: 1 / 4; grid-row: 2; min-height: 40px; padding: 6px }
  kbd { display: none }
}
@media (max-height: 480px) {
  body { padding-top: 6px }
  progress { margin: 4px 0 }
  #prompt { font-size: 16px; margin: 0 0 4px }
  figure img { height: 42vh }
  .choices { padding: 6px 0 }
  .choices button { min-height: 40px; padding: 6px }
}
"""

BODY = """
<header><h1>Which edit is better?</h1><span id="progress" role="status"></span></header>
<progress id="bar" max="1" value="0" aria-hidden="true"></progress>
<noscript><p>This page needs JavaScript, which your browser does not run here.</p></noscript>
<form id="who" hidden>
  <label for="name">Your name</label>
  <input id="name" maxlength="40" autocomplete="off" required>
  <button type="submit">Begin</button>
  <span class="hint">Votes are kept under this name; come back with it to go on.</span>
</form>
<main id="question" hidden>
  <p id="prompt"></p>
  <div class="pictures">
    <figure><figcaption>Before</figcaption><button type="button" class="zoom" aria-label="Enlarge the picture before">
      <img id="input" alt="the picture before the edit"></button></figure>
    <figure><figcaption>Left</figcaption><button type="button" class="zoom" aria-label="Enlarge the left edit">
      <img id="left" alt="the left edit"></button></figure>
    <figure><figcaption>Right</figcaption><button type="button" class="zoom" aria-label="Enlarge the right edit">
      <img id="right" alt="the right edit"></button></figure>
  </div>
</main>
<p id="message" role="alert"></p>
<p id="done" hidden>That was the last one. Thank you! You can close this page.</p>
<div class="choices" id="choices" role="group" aria-label="Your vote" hidden>
  <button type="button" id="undo">Undo <kbd>u</kbd></button>
  <button type="button" data-choice="left"><kbd>&larr;</kbd> Left</button>
  <button type="button" data-choice="tie">Tie <kbd>&darr;</kbd></button>
  <button type="button" data-choice="right">Right <kbd>&rarr;</kbd></button>
</div>
<dialog id="large" aria-label="The picture, enlarged"><img alt=""></dialog>
"""

SCRIPT = """
"use strict";
const at = id => document.getElementById(id);
const KEYS = {ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie"};
const PLACES = ["input", "left", "right"];
const choices = [...document.querySelectorAll("[data-choice]")];
let voter = document.body.dataset.voter, question = null, canUndo = false, busy = true, shownAt = 0;

function setBusy(value) {
  busy = value;
  // Not disabled: a button that is would lose the focus of those who vote with the keyboard.
  for (const button of choices) button.setAttribute("aria-disabled", value || question === null);
  at("undo").setAttribute("aria-disabled", value || !canUndo);
}

async function send(action, body) {
  const reply = await fetch(action, {method: "POST", headers: {"Content-Type": "application/json"},
    body: JSON.stringify({voter, ...body})});
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
}

async function load(place, address) {
  const image = at(place);
  image.src = address;
  try { await image.decode(); } catch (error) {
    const reply = await fetch(address);
    throw new Error(reply.ok ? "a picture cannot be shown" : (await reply.json()).error);
  }
}

async function show(state) {
  question = null;
  canUndo = state.can_undo;
  at("bar").max = Math.max(1, state.total);
  at("bar").value = state.done;
  at("progress").textContent = `${state.done} of ${state.total} done, ${voter}`;
  at("who").hidden = true;
  at("choices").hidden = false;
  at("question").hidden = state.question === null;
  at("done").hidden = state.question !== null;
  if (at("large").open) at("large").close();
  if (state.question === null) return;
  at("prompt").textContent = state.question.prompt;
  await Promise.all(PLACES.map(place => load(place, state.question[place])));
  question = state.question;  // only now: nobody votes on what cannot be seen
  shownAt = performance.now();
}

async function act(action, body) {
  if (busy) return;
  setBusy(true);
  at("message").textContent = "";
  try { await show(await send(action, body)); }
  catch (error) {
    at("message").textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
  }
  setBusy(false);
}

function vote(choice) {
  if (question !== null)
    act("/vote", {question: question.id, choice, seconds: (performance.now() - shownAt) / 1000});
}

for (const button of choices) button.addEventListener("click", () => vote(button.dataset.choice));
at("undo").addEventListener("click", () => { if (canUndo) act("/undo", {}); });
for (const button of document.querySelectorAll(".zoom")) button.addEventListener("click", () => {
  const large = at("large").firstElementChild, small = button.querySelector("img");
  large.src = small.src;
  large.alt = small.alt;
  at("large").showModal();
});
at("large").addEventListener("click", () => at("large").close());
document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.id === "name") return;
  if (at("choices").hidden || at("large").open) return;
  if (event.key in KEYS) { event.preventDefault(); vote(KEYS[event.key]); }
  else if (event.key === "u" && canUndo) act("/undo", {});
});
at("who").addEventListener("submit", event => {
  event.preventDefault();
  voter = at("name").value.trim();
  act("/state", {});
});
setBusy(false);
if (voter) act("/state", {}); else { at("who").hidden = false; at("name").focus(); }
"""


def page(*, voter: str, nonce: str) -> str:
    """The page; `voter` is who votes, "" to ask. Style and script carry `nonce`, which the page's policy names."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Which edit is better?</title>'
        f'<link rel="icon" href="data:,"><style nonce="{nonce}">{STYLE}</style></head>'
        f'<body data-voter="{html.escape(voter)}">{BODY}<script nonce="{nonce}">{SCRIPT}</script></body></html>\n'
    )
