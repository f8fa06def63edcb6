"use strict";
(() => {
  const root = document.documentElement;

  // --- light or dark: as the system is, until somebody says otherwise ------------------------------------------------
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = {
    get: () => { try { return localStorage.getItem("orchestrator-theme"); } catch { return null; } },
    set: (name) => { try { localStorage.setItem("orchestrator-theme", name); } catch { /* a file may have no storage */ } },
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.title = isDark() ? "Switch to light colours" : "Switch to dark colours";
  };
  const chosen = remembered.get();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  button.hidden = false;
  show();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered.set(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);

  // --- tables with buttons in their heads sort by them ---------------------------------------------------------------
  const words = new Intl.Collator("en", { numeric: true });
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? words.compare(a, b) : x - y;
  };
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const sort = (index, direction) => {
      const sign = direction === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => ({ row, key: row.cells[index].dataset.order }));
      rows.sort((a, b) => {
        // A figure that is not there is last in either direction.
        if (a.key === undefined || b.key === undefined) return (a.key === undefined) - (b.key === undefined);
        return sign * compare(a.key, b.key);
      });
      body.append(...rows.map((entry) => entry.row));
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[index].setAttribute("aria-sort", direction);
    };
    heads.forEach((head, index) => {
      head.querySelector("button")?.addEventListener("click", () => {
        sort(index, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
      });
    });
  };
  const table = document.getElementById("candidates");
  if (table) sortable(table);

  // A table's right edge fades as long as there is more beyond it.
  for (const scroll of document.querySelectorAll(".scroll")) {
    const fade = () => scroll.classList.toggle("beyond", scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 2);
    scroll.addEventListener("scroll", fade, { passive: true });
    new ResizeObserver(fade).observe(scroll);
  }

  // --- a link to a candidate opens its row ---------------------------------------------------------------------------
  const open = () => {
    const row = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = row && row.querySelector("details");
    if (!details) return;
    details.open = true;
    row.scrollIntoView({ block: "center" });
    details.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", open);
  for (const link of document.querySelectorAll('a[href^="#c-"]')) {
    link.addEventListener("click", () => setTimeout(open)); // a second click on the same link changes no hash
  }
  open();

  // --- what a point of the plot is, beside the pointer or the focus; arrow keys go from point to point ------------------
  const tip = document.getElementById("tip");
  const tell = (point) => {
    const [title, ...lines] = point.getAttribute("aria-label").split("\n");
    const strong = document.createElement("strong");
    strong.textContent = title;
    tip.replaceChildren(strong, ...lines.map((line) => Object.assign(document.createElement("span"), { textContent: line })));
    tip.hidden = false;
    const mark = point.querySelector(".mark").getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, mark.left + mark.width / 2 - own.width / 2), root.clientWidth - own.width - 8);
    const above = mark.top - own.height - 10;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above < 8 ? mark.bottom + 10 : above) + scrollY}px`;
  };
  const hush = () => { tip.hidden = true; };
  for (const drawing of document.querySelectorAll("svg.chart")) {
    const points = [...drawing.querySelectorAll("a.point")]
      .map((point) => ({ point, x: point.querySelector(".mark").transform.baseVal[0].matrix.e }))
      .sort((a, b) => a.x - b.x)
      .map((entry) => entry.point);
    points.forEach((point, index) => {
      point.addEventListener("pointerenter", () => tell(point));
      point.addEventListener("pointerleave", hush);
      point.addEventListener("focus", () => tell(point));
      point.addEventListener("blur", hush);
      point.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1 }[event.key];
        if (step === undefined) {
          if (event.key === "Escape") hush();
          return;
        }
        event.preventDefault();
        points[(index + step + points.length) % points.length].focus();
      });
    });
  }

  // On paper there is nothing to click: what is folded is opened for it, but for the parameters of every candidate.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.layers:not([open])")].slice(0, 3);
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
})();
