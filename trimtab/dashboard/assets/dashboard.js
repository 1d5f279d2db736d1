// What the page does beside being read: charts, the theme, and staying up to date.
//
// The server tells over /events that something changed; the page is then asked for again and its live parts are put in
// place of the old ones. So there is one way to write a figure, and it is the server's.
"use strict";

(() => {
  const LEAST_MS = 1500; // between two looks, however much happens
  const root = document.documentElement;

  const theme = document.querySelector("[data-theme-switch]");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
  const showTheme = () => { theme.textContent = isDark() ? "Light theme" : "Dark theme"; };
  if (theme) {
    theme.hidden = false;
    showTheme();
    systemDark.addEventListener("change", showTheme);
    theme.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      document.cookie = `trimtab_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
      showTheme();
      trimtabCharts.all();
    });
  }
  trimtabCharts.all();

  const states = document.querySelectorAll("[data-live-state]");
  if (!states.length) return;
  const told = document.querySelector("[data-live-told]");
  const say = (name, words) => {
    for (const each of states) { each.dataset.state = name; each.textContent = words; }
  };

  const keyOf = (each) => each.id || each.dataset.keep;
  const parts = (page) => [...page.querySelectorAll("[data-live]")].map((each) => each.id).join();
  const replace = (fresh) => {
    if (parts(fresh) !== parts(document)) { location.reload(); return; } // as when the first request has come
    for (const old of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(old.id);
      if (!next || next.outerHTML === old.dataset.was) continue;
      const open = new Set([...old.querySelectorAll("details[open]")].map(keyOf));
      const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
      const scrolled = [...old.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
      const was = next.outerHTML;
      const placed = document.importNode(next, true);
      old.replaceWith(placed);
      placed.dataset.was = was;
      for (const each of placed.querySelectorAll("details")) if (open.has(keyOf(each))) each.open = true;
      placed.querySelectorAll(".scroll").forEach((each, at) => { if (scrolled[at]) [each.scrollLeft, each.scrollTop] = scrolled[at]; });
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      trimtabCharts.all(placed);
    }
  };

  let looking = false, again = false, last = 0;
  const look = async () => {
    if (looking) { again = true; return; }
    looking = true;
    const began = performance.now();
    let took = 0;
    try {
      await new Promise((done) => setTimeout(done, Math.max(0, last + LEAST_MS - began)));
      again = false;
      const asked = performance.now();
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
      if (answer.redirected && new URL(answer.url).pathname !== location.pathname) { location.reload(); return; }
      if (answer.ok) replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
      took = performance.now() - asked;
    } catch { /* the stream says when the server is back, and the page looks again then */ } finally {
      last = performance.now() + 4 * took; // a slow page is asked for less often
      looking = false;
      if (again) look();
    }
  };

  let count = 0, opened = false;
  const stream = new EventSource(`/events?after=${states[0].dataset.after}`);
  stream.addEventListener("open", () => {
    say("live", "Live");
    if (opened) look(); // what happened while the stream was down
    opened = true;
  });
  stream.addEventListener("error", () => say("off", "Reconnecting"));
  stream.addEventListener("changed", (event) => {
    const { requests } = JSON.parse(event.data);
    count += requests;
    if (requests && told) told.textContent = `${count} new ${count === 1 ? "request" : "requests"}`;
    look();
  });
  window.addEventListener("pagehide", () => stream.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); }); // back again, its stream closed
})();
