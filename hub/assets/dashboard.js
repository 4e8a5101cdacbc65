// Keeps a page live: ages count, fragments that the hub sends replace their elements, a log is tailed.
// Everything works without it, only not by itself.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Ages -----------------------------------------------------------------------------------------------------------
  const age = (seconds) => {
    const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 0, ""]];
    for (const [size, name, next, small] of units) {
      if (seconds < size) continue;
      const rest = next ? Math.floor((seconds % size) / next) : 0;
      return `${Math.floor(seconds / size)} ${name}` + (rest && seconds < 10 * size ? ` ${rest} ${small}` : "");
    }
    return `${seconds} s`;
  };
  const count = (root) => {
    for (const time of root.querySelectorAll("time[data-age]")) {
      const seconds = Math.round((Date.now() - Date.parse(time.dateTime)) / 1000);
      const ago = time.closest(".link + .sub") ? "" : " ago";
      const text = seconds < 0 ? `in ${age(-seconds)}` : seconds < 2 ? "just now" : age(seconds) + ago;
      if (time.textContent !== text) time.textContent = text;
    }
  };
  count(document);
  setInterval(() => count(document), 1000);

  // Theme ----------------------------------------------------------------------------------------------------------
  const theme = byId("theme");
  theme?.addEventListener("submit", (event) => {
    event.preventDefault();
    const set = document.documentElement.dataset.theme;
    const dark = set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const to = dark ? "light" : "dark";
    document.documentElement.dataset.theme = to;
    theme.elements.to.value = dark ? "dark" : "light";
    document.cookie = `leeward_theme=${to}; SameSite=Lax; Path=/; Max-Age=31536000`;
  });

  // Fragments ------------------------------------------------------------------------------------------------------
  const replace = (fresh) => {
    const old = byId(fresh.id);
    if (!old) return;
    if (old.dataset.hash === fresh.dataset.hash) {
      // The same things in the same order; what is in them may differ.
      for (const inner of [...fresh.children]) if (inner.dataset.hash && inner.id) replace(inner);
      return;
    }
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const open = [...old.querySelectorAll("details[open][id]")].map((details) => details.id);
    const scrolled = [...old.querySelectorAll(".scroll, .tall")].map((box) => [box.scrollLeft, box.scrollTop]);
    old.replaceWith(fresh);
    for (const id of open) byId(id)?.setAttribute("open", "");
    [...fresh.querySelectorAll(".scroll, .tall")].forEach((box, n) => box.scrollTo(...(scrolled[n] ?? [0, 0])));
    if (focused) byId(focused)?.focus({ preventScroll: true });
    // New numbers are ordinary; another health is not.
    old.classList.remove("fresh");
    if (fresh.tagName === "TR" && old.className !== fresh.className) fresh.classList.add("fresh");
    count(fresh);
  };

  const live = byId("live");
  const show = (on) => {
    live?.classList.toggle("on", on);
    const word = live?.querySelector(".word");
    if (word) word.textContent = on ? "Live" : "Reconnecting…";
  };
  let source;
  let wait = 1000;
  const follow = () => {
    source?.close();
    source = new EventSource(`/events/stream?${document.body.dataset.live}`);
    source.addEventListener("hello", (event) => {
      // The hub is another version now: its pages may look different.
      if (event.data !== document.body.dataset.version) return location.reload();
      wait = 1000;
      show(true);
    });
    source.addEventListener("fragment", (event) => {
      const template = document.createElement("template");
      template.innerHTML = JSON.parse(event.data).html;
      replace(template.content.firstElementChild);
    });
    source.addEventListener("say", (event) => {
      const line = document.createElement("p");
      line.textContent = event.data;
      byId("said").replaceChildren(line);
    });
    source.addEventListener("gone", () => {
      source.close();
      location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    });
    source.addEventListener("error", () => {
      show(false);
      // The browser comes back by itself unless the answer was no stream at all.
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(follow, wait);
      wait = Math.min(wait * 2, 30000);
    });
  };
  if (document.body.dataset.live) {
    follow();
    // A browser has few connections to one host: a page that is left gives its own back at once.
    addEventListener("pagehide", () => source.close());
    addEventListener("pageshow", (event) => event.persisted && follow());
  }

  // Search as one types: the page is asked for, and only its parts are replaced ------------------------------------
  const search = byId("q");
  let typing;
  search?.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(async () => {
      const query = new URLSearchParams(new FormData(search.form)).toString();
      const answer = await fetch(`/?${query}`).catch(() => null);
      if (!answer?.ok || answer.redirected) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      history.replaceState(null, "", `/?${query}`);
      document.body.dataset.live = page.body.dataset.live;
      for (const id of ["summary", "rows", "pager"]) replace(document.adoptNode(page.getElementById(id)));
      follow();
    }, 200);
  });

  // Log tail -------------------------------------------------------------------------------------------------------
  const panel = byId("log");
  if (!panel) return;
  const lines = byId("log-lines");
  const state = byId("log-state");
  const MOST = 2000;
  let tail;
  let opener = "";
  const add = (text) => {
    const line = document.createElement("span");
    const [, at, rest] = /^\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d(?:\.\d{1,3})?)\S* (.*)$/s.exec(text) ?? [];
    if (at) {
      const stamp = document.createElement("span");
      stamp.className = "at";
      stamp.textContent = `${at} `;
      line.append(stamp);
    }
    line.append(`${at ? rest : text}\n`);
    lines.append(line);
  };
  const close = () => {
    tail?.close();
    tail = undefined;
    panel.hidden = true;
    byId(opener)?.focus();
  };
  const watch = (link) => {
    tail?.close();
    opener = link.id;
    lines.replaceChildren();
    panel.hidden = false;
    byId("log-of").textContent = link.dataset.log;
    state.textContent = "asking the device…";
    panel.scrollIntoView({ block: "nearest" });
    lines.focus();
    const address = new URL(link.href);
    tail = new EventSource(`${address.pathname}/stream${address.search}`);
    tail.addEventListener("lines", (event) => {
      state.textContent = "live";
      JSON.parse(event.data).forEach(add);
      while (lines.childElementCount > MOST) lines.firstElementChild.remove();
      if (byId("log-follow").checked) lines.scrollTop = lines.scrollHeight;
    });
    tail.addEventListener("end", (event) => {
      state.textContent = event.data;
      tail.close();
    });
    tail.addEventListener("error", () => {
      // Started anew it would tell the same lines again.
      state.textContent = "the stream broke off; open it again";
      tail.close();
    });
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a.log");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    watch(link);
  });
  byId("log-close").addEventListener("click", close);
  panel.addEventListener("keydown", (event) => event.key === "Escape" && close());
})();
