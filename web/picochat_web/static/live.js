// Run list and run page: fetches the changing parts while something runs and swaps those that differ.
// Keeps focus, open details and scroll positions. Without it the pages show the same, once.
"use strict";

const main = document.querySelector("main[data-live]");
const SLOWEST_MS = 30000;

function say(text) {
  const note = document.getElementById("live-note");
  if (note && note.textContent !== text) note.textContent = text;
}

// What the reader did to a part and the server does not know.
function remember(part) {
  const details = [...part.querySelectorAll("details[id]")].map(({ id, open }) => ({ id, open }));
  const scrolls = [...part.querySelectorAll("[id]")]
    .filter((one) => one.scrollTop || one.scrollLeft || "keepEnd" in one.dataset)
    .map((one) => ({
      id: one.id,
      top: one.scrollTop,
      left: one.scrollLeft,
      atEnd: "keepEnd" in one.dataset && one.scrollHeight - one.scrollTop - one.clientHeight < 8,
    }));
  const active = document.activeElement;
  return { details, scrolls, focus: part.contains(active) ? { id: active.id, path: pathIn(part, active) } : null };
}

// Places among the children, from the part down: finds an element without an id again.
function pathIn(part, one) {
  const path = [];
  for (; one !== part; one = one.parentElement) path.unshift([...one.parentElement.children].indexOf(one));
  return path;
}

function restore(part, memory) {
  for (const { id, open } of memory.details) document.getElementById(id)?.toggleAttribute("open", open);
  for (const { id, top, left, atEnd } of memory.scrolls) {
    const one = document.getElementById(id);
    if (one) one.scrollTo({ top: atEnd ? one.scrollHeight : top, left, behavior: "instant" });
  }
  if (memory.focus) {
    const { id, path } = memory.focus;
    const again = id ? document.getElementById(id) : path.reduce((one, place) => one?.children[place], part);
    again?.focus({ preventScroll: true });
  }
}

// A selection would be lost by the swap; the part waits until it is gone.
function isSelected(part) {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
}

function swap(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const facts = fresh.querySelector("[data-seq]")?.dataset; // read before the parts move over
  let wasComplete = true;
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = document.getElementById(part.id);
    if (!old || old.isEqualNode(part)) continue;
    if (isSelected(old)) { wasComplete = false; continue; }
    const memory = remember(old);
    old.replaceWith(part);
    restore(part, memory);
  }
  return { wasComplete, facts: { ...facts } };
}

async function refresh() {
  const url = new URL(main.dataset.live || location.href, location.href);
  if (main.dataset.seq) url.searchParams.set("seq", main.dataset.seq);
  const answer = await fetch(url, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (answer.redirected) { say("Logged out; load the page again to log in"); return false; }
  if (answer.status === 204) return true;
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const { wasComplete, facts } = swap(await answer.text());
  if (facts.seq && wasComplete) main.dataset.seq = facts.seq;
  if (facts.final === "1" && wasComplete) { say("Finished"); return false; }
  return true;
}

async function follow() {
  const pause = 1000 * Number(main.dataset.seconds);
  let wait = pause;
  for (;;) {
    await new Promise((done) => setTimeout(done, wait));
    if (document.hidden) continue;
    try {
      if (!(await refresh())) return;
      say("Live");
      wait = pause;
    } catch {
      say("The server does not answer; trying again");
      wait = Math.min(2 * wait, SLOWEST_MS);
    }
  }
}

for (const one of document.querySelectorAll("[data-keep-end]")) one.scrollTop = one.scrollHeight;
if (main) { say("Live"); follow(); }
