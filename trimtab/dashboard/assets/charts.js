// Charts: drawn by uPlot over the tables that the page holds, so that a chart and its table cannot differ.
//
// <figure data-chart data-x="time|tokens" data-y="usd|tokens|share"> holds a <div class="plot"> and a table: the first
// column is x, every other <th data-draw="line|area|dashed|edge|signed|point" data-colour="billed|..."> a series. A cell's value
// is its data-v; a cell without one has no value.
"use strict";

const trimtabCharts = (() => {
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const number = (digits) => new Intl.NumberFormat("en-US", { maximumFractionDigits: digits });
  const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

  const dollars = (value, step) => {
    const digits = Math.min(8, Math.max(0, Math.ceil(-Math.log10(step || Math.abs(value) || 1))));
    const size = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return `${value < 0 ? "−" : ""}$${size}`;
  };
  const units = {
    usd: (value, step) => dollars(value, step),
    tokens: (value) => compact.format(value),
    share: (value) => number(2).format(value),
  };

  // What is signed is drawn as bars of two colours, which for uPlot are two series.
  const signs = (head) => head.dataset.draw === "signed" ? [["good", (v) => v >= 0], ["bad", (v) => v < 0]] : [[head.dataset.colour, () => true]];

  const seriesOf = (heads, spanGaps) => heads.flatMap((head) => signs(head).map(([name]) => {
    const ink = colour(name);
    const draw = head.dataset.draw;
    const row = { label: head.textContent.trim(), stroke: ink, width: 1.5, spanGaps, points: { show: false } };
    if (draw === "area") row.fill = ink + "26";
    if (draw === "signed") Object.assign(row, { fill: ink, width: 0, paths: uPlot.paths.bars({ size: [0.7, 24, 1] }) });
    if (draw === "edge") row.width = 0.75;
    if (draw === "dashed") row.dash = [5, 4];
    if (draw === "point") Object.assign(row, { paths: () => null, points: { show: true, size: 11, fill: ink } });
    return row;
  }));

  const dataOf = (table, heads) => {
    const rows = [...table.tBodies[0].rows];
    const column = (at) => rows.map((row) => row.cells[at].dataset.v === "" ? null : Number(row.cells[at].dataset.v));
    const series = heads.flatMap((head, at) => signs(head).map(([, wanted]) => column(at + 1).map((v) => v !== null && wanted(v) ? v : null)));
    return [column(0), ...series];
  };

  const times = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
  const days = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  const time = (seconds) => (seconds % 86400 ? times : days).format(new Date(seconds * 1000));

  const axes = (figure) => {
    const line = { stroke: colour("soft"), grid: { stroke: colour("rule"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const unit = units[figure.dataset.y];
    const y = { ...line, size: 62, values: (_, ticks) => ticks.map((tick) => unit(tick, ticks[1] - ticks[0])) };
    const told = figure.dataset.x === "time" ? time : (tick) => compact.format(tick);
    const x = { ...line, size: 28, grid: { show: false }, values: (_, ticks) => ticks.map(told) };
    return [x, y];
  };

  const draw = (figure) => {
    const plot = figure.querySelector(".plot");
    const table = figure.querySelector("table");
    if (!plot || !table || !table.tBodies[0].rows.length) return;
    const heads = [...table.tHead.rows[0].cells].slice(1);
    const data = dataOf(table, heads);
    const tip = figure.querySelector(".tip");
    const share = (_, low) => [Math.max(0, Math.floor((low ?? 1) * 10 - 1e-9) / 10), 1];
    const range = figure.dataset.y === "share" ? share : (_, low, high) => uPlot.rangeNum(Math.min(0, low ?? 0), Math.max(high ?? 0, 1e-9), { min: { pad: 0.1, soft: 0, mode: 1 }, max: { pad: 0.1, soft: 0, mode: 1 } });
    const step = data[0].length > 1 ? data[0][1] - data[0][0] : 1; // half of it on either side, so that no bar is cut
    const wide = figure.dataset.x === "time" ? (_, low, high) => [low - step / 2, high + step / 2] : (_, low, high) => [low, high === low ? low + 1 : high];
    const bands = heads.flatMap((head, at) => head.dataset.band ? [{ series: [at + 1, at + 1 + Number(head.dataset.band)], fill: colour(head.dataset.colour) + "22" }] : []);
    const said = (at) => [table.tBodies[0].rows[at].cells[0].textContent.trim(), ...heads.map((head, each) => `${head.textContent.trim()} ${table.tBodies[0].rows[at].cells[each + 1].textContent.trim()}`)].join(" · ");
    const options = {
      width: plot.clientWidth || figure.clientWidth,
      height: 220,
      padding: [8, 8, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC"),
      scales: { x: { time: figure.dataset.x === "time", range: wide }, y: { range } },
      axes: axes(figure),
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      series: [{}, ...seriesOf(heads, figure.dataset.x === "tokens")],
      bands,
      hooks: { setCursor: [(chart) => { if (tip) tip.textContent = chart.cursor.idx == null ? "" : said(chart.cursor.idx); }] },
    };
    drawn.get(figure)?.destroy();
    plot.hidden = false;
    drawn.set(figure, new uPlot(options, data, plot));
  };

  const all = (root) => {
    for (const [figure, chart] of drawn) {
      if (!figure.isConnected) { chart.destroy(); drawn.delete(figure); }
    }
    for (const figure of (root || document).querySelectorAll("figure[data-chart]")) draw(figure);
  };

  let waiting = 0;
  window.addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const [figure, chart] of drawn) chart.setSize({ width: figure.querySelector(".plot").clientWidth, height: 220 });
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all());
  return { all };
})();
