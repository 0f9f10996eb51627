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
  const opened = [...part.querySelectorAll("details[id][open]")].map((one) => one.id);
  const closed = [...part.querySelectorAll("details[id]:not([open])")].map((one) => one.id);
  const scrolls = [...part.querySelectorAll("[id]")]
    .filter((one) => one.scrollTop || one.scrollLeft || "keepEnd" in one.dataset)
    .map((one) => ({
      id: one.id,
      top: one.scrollTop,
      left: one.scrollLeft,
      atEnd: "keepEnd" in one.dataset && one.scrollHeight - one.scrollTop - one.clientHeight < 8,
    }));
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  return { opened, closed, scrolls, focused };
}

function restore(memory) {
  for (const id of memory.opened) document.getElementById(id)?.setAttribute("open", "");
  for (const id of memory.closed) document.getElementById(id)?.removeAttribute("open");
  for (const { id, top, left, atEnd } of memory.scrolls) {
    const one = document.getElementById(id);
    if (one) one.scrollTo({ top: atEnd ? one.scrollHeight : top, left, behavior: "instant" });
  }
  if (memory.focused) document.getElementById(memory.focused)?.focus({ preventScroll: true });
}

function isInUse(part) {
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && part.contains(selection.anchorNode)) return true;
  const active = document.activeElement;
  return part.contains(active) && !active.id; // it could not be found again after the swap
}

function swap(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const facts = fresh.querySelector("[data-seq]")?.dataset; // read before the parts move over
  let wasComplete = true;
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = document.getElementById(part.id);
    if (!old || old.isEqualNode(part)) continue;
    if (isInUse(old)) { wasComplete = false; continue; }
    const memory = remember(old);
    old.replaceWith(part);
    restore(memory);
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

const log = document.getElementById("log-lines");
if (log) log.scrollTop = log.scrollHeight;
if (main) { say("Live"); follow(); }
