"use strict";
(() => {
  const root = document.documentElement;
  const table = document.getElementById("candidates");
  const island = document.getElementById("plot-data");

  // --- the table sorts by its column titles -------------------------------------------------------------------------
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const words = new Intl.Collator("en", { numeric: true });

  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? words.compare(a, b) : x - y;
  };

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
    head.querySelector("button").addEventListener("click", () => {
      sort(index, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
    });
  });

  // The table's right edge fades as long as there is more beyond it.
  const scroll = table.parentElement;
  const fade = () => scroll.classList.toggle("beyond", scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 2);
  scroll.addEventListener("scroll", fade, { passive: true });
  new ResizeObserver(fade).observe(scroll);

  // --- the plot -----------------------------------------------------------------------------------------------------
  const data = island && JSON.parse(island.textContent);
  const ROLES = [
    // role, colour, symbol, filled: told apart by their shape, not by their colour alone
    ["dominated", "--rest", "circle-open"],
    ["over a limit", "--bad", "x"],
    ["stopped", "--rest", "square-open"],
    ["baseline", "--base", "diamond"],
    ["front", "--front", "circle"],
    ["recommended", "--best", "star"],
  ];

  const draw = () => {
    const plot = document.getElementById("plot");
    if (!data || !window.Plotly || !plot) return;
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const narrow = plot.clientWidth < 560;
    const sizes = data.points.map((point) => point.size).filter((size) => size !== null);
    const largest = Math.max(...sizes, 1);
    // The area, not the width, follows the file's size.
    const width = (point) => (point.size === null ? 11 : 9 + 15 * Math.sqrt(point.size / largest));
    const crowded = data.points.length > 60;

    const traces = [{
      x: data.stairs.map((corner) => corner[0]), y: data.stairs.map((corner) => corner[1]), mode: "lines",
      line: { shape: "hv", color: colour("--front"), width: 1.5, dash: "dot" }, hoverinfo: "skip", showlegend: false,
    }];
    for (const [role, name, symbol] of ROLES) {
      const points = data.points.filter((point) => point.role === role);
      if (!points.length) continue;
      const bars = crowded && (role === "dominated" || role === "over a limit");
      const error = (low, value, high) => ({
        type: "data", symmetric: false, visible: !bars, color: colour(name), thickness: 1, width: 3,
        array: points.map((point) => point[high] - point[value]),
        arrayminus: points.map((point) => point[value] - point[low]),
      });
      traces.push({
        name: role, mode: "markers", x: points.map((point) => point.x), y: points.map((point) => point.y),
        opacity: role === "dominated" || role === "over a limit" ? 0.75 : 1,
        error_x: error("x_low", "x", "x_high"), error_y: error("y_low", "y", "y_high"),
        marker: {
          symbol, color: colour(name), opacity: 1,
          size: points.map((point) => width(point) * (symbol === "star" ? 1.35 : 1)),
          line: { width: symbol.endsWith("open") ? 2 : 1, color: symbol.endsWith("open") ? colour(name) : colour("--card") },
        },
        text: points.map((point) => point.hover), hovertemplate: "%{text}<extra></extra>",
      });
    }

    const axis = {
      color: colour("--quiet"), gridcolor: colour("--soft"), linecolor: colour("--line"), zeroline: false,
      automargin: true, ticks: "outside", tickcolor: colour("--line"),
    };
    const limit = data.x_limit;
    window.Plotly.react(plot, traces, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--rest"), activecolor: colour("--ink") },
      dragmode: narrow ? false : "zoom",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") },
      margin: { l: narrow ? 48 : 64, r: 20, t: narrow ? 76 : 48, b: 56 },
      xaxis: { ...axis, type: data.log ? "log" : "linear", dtick: data.log ? "D2" : undefined, title: { text: data.x_title.join(narrow ? "<br>" : " "), standoff: 12 } },
      yaxis: { ...axis, title: { text: data.y_title, standoff: 10 } },
      legend: { orientation: "h", y: 1.03, yanchor: "bottom", x: 0, itemsizing: "constant", font: { size: narrow ? 12 : 13 } },
      hoverlabel: {
        bgcolor: colour("--card"), bordercolor: colour("--line"), align: "left",
        font: { family: getComputedStyle(document.body).fontFamily, color: colour("--ink"), size: narrow ? 11 : 13 },
      },
      shapes: limit === null ? [] : [{
        type: "line", x0: limit, x1: limit, yref: "paper", y0: 0, y1: 1,
        line: { color: colour("--bad"), width: 1, dash: "dash" },
        label: { text: "limit", textposition: "start", textangle: 0, xanchor: "left", padding: 5, font: { color: colour("--bad"), size: 12 } },
      }],
    }, {
      responsive: true, displaylogo: false, displayModeBar: narrow ? false : "hover",
      // Named one by one, so that no button of a later plotly can offer to send the figures elsewhere.
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    });
  };

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // Paper is light, whatever the screen is.
  addEventListener("beforeprint", () => { root.dataset.print = ""; draw(); });
  addEventListener("afterprint", () => { delete root.dataset.print; draw(); });
})();
