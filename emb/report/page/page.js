// Draws the page's charts from the figures that stand in it, and answers its controls. Fetches nothing.
"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false;

// The charts that are to be drawn anew when the colours change.
const drawn = new Map();

function colours() {
  const onDark = dark.matches && !printing;
  const ink = onDark ? "#ececec" : "#1b1b1b";
  const line = onDark ? "#44484d" : "#d4d4d4";
  const text = { labelColor: ink, titleColor: ink };
  return {
    background: "transparent",
    view: { stroke: line },
    rule: { color: ink },
    axis: { ...text, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12 },
    legend: { ...text, orient: "bottom", labelFontSize: 12, titleFontSize: 12, symbolStrokeColor: ink },
  };
}

function draw(element, specification) {
  drawn.set(element, specification);
  // The interpreter evaluates expressions without generating code, which the page's policy forbids.
  const options = { renderer: "svg", actions: false, ast: true, config: colours() };
  return vegaEmbed(element, structuredClone(specification), options);
}

function withPoints(name, points) {
  const specification = structuredClone(figures.templates[name]);
  specification.datasets = { points };
  return specification;
}

// Accuracy against cost

function isAtLeastAsGood(one, other, axis, key) {
  const near = 1 + axis.equal_within;
  return axis.better === "less" ? one[key] <= near * other[key] : near * one[key] >= other[key];
}

function markFrontier(points, x, y) {
  for (const point of points) {
    point.frontier = !points.some(
      (other) =>
        other.group === point.group &&
        isAtLeastAsGood(other, point, x, "x") &&
        isAtLeastAsGood(other, point, y, "y") &&
        !(isAtLeastAsGood(point, other, x, "x") && isAtLeastAsGood(point, other, y, "y")),
    );
  }
}

const WITHIN = { "": "", machine: " on the same machine", target: " for the same target" };

function told(value) {
  return value.toLocaleString("en", { maximumFractionDigits: 2 });
}

function pointsOf(rows, x, y) {
  return rows
    .filter((row) => row.values[x.key] !== null && row.values[y.key] !== null)
    .map((row) => ({
      build: row.build,
      file: row.file,
      scheme: row.scheme,
      runtime: row.runtime,
      // Of points that can be compared.
      group: x.within ? row[x.within] : "",
      source: x.within === "target" ? `time estimated: ${row.estimate.source}; accuracy ${row.source}` : row.source,
      number: row.number,
      x: row.values[x.key],
      y: row.values[y.key],
      xText: `${told(row.values[x.key])} (${x.title})`,
      least: x.within === "target" ? row.estimate.lowest_us : null,
      yText: `${told(row.values[y.key])} (${y.title})`,
      low: y.key === "accuracy" && row.low !== null ? 100 * row.low : null,
      high: y.key === "accuracy" && row.high !== null ? 100 * row.high : null,
      interval: row.low === null ? "–" : `${told(100 * row.low)}–${told(100 * row.high)}`,
    }));
}

function tradeoffOf(points, schemes, x, y, logarithmic) {
  const specification = withPoints("tradeoff", points);
  // A layer without any point would stretch the axis to zero.
  const isIn = {
    intervals: (point) => point.frontier && point.low !== null,
    estimates: (point) => point.frontier && point.least !== null,
    dominated: (point) => !point.frontier,
  };
  specification.layer = specification.layer.filter((layer) => !(layer.name in isIn) || points.some(isIn[layer.name]));
  for (const layer of specification.layer) {
    const { x: across, y: up, color, shape } = layer.encoding;
    across.title = x.title;
    across.scale = logarithmic ? { type: "log", nice: false, padding: 20 } : { zero: false, padding: 20 };
    if (up.scale) up.title = y.title;
    if (color) color.scale.domain = schemes;
    if (shape) shape.scale.domain = schemes;
  }
  return specification;
}

function setUpTradeoff(section) {
  const rows = figures.sections[Number(section.dataset.section)].map((row, number) => ({ ...row, number }));
  const schemes = [...new Set(rows.map((row) => row.scheme))].sort();
  const form = section.querySelector("form");
  const choose = form.elements;
  const lines = [...section.querySelectorAll("tbody tr")];

  function show() {
    const x = figures.axes[choose.x.value];
    const y = figures.axes[choose.y.value];
    const kept = rows.filter(
      (row) =>
        (choose.runtime.value === "" || row.runtime === choose.runtime.value) &&
        (choose.machine.value === "" || row.machine === choose.machine.value) &&
        (!choose.target?.value || row.target === choose.target.value),
    );
    const points = pointsOf(kept, x, y);
    markFrontier(points, x, y);
    for (const point of points) point.place = point.frontier ? "on it" : "something else is better";
    const numbers = new Set(kept.map((row) => row.number));
    const best = new Set(points.filter((point) => point.frontier).map((point) => point.number));
    lines.forEach((line, number) => {
      line.hidden = !numbers.has(number);
      line.classList.toggle("best", best.has(number));
      line.querySelector(".place").textContent = best.has(number) ? "yes" : "";
    });
    const without = kept.length - points.length;
    section.querySelector("figcaption").textContent =
      `${points.length} shown, ${best.size} on the frontier: nothing else is at least as good both ways` +
      WITHIN[x.within] +
      (x.equal_within ? `, where times less than ${told(100 * x.equal_within)} % apart count as equal` : "") +
      (x.within === "target" ? "; horizontal lines are what is estimated at least and at most" : "") +
      (without ? `; ${without} without these figures` : "") +
      (y.key === "accuracy" ? "; vertical lines are 95 % intervals" : "");
    const chart = section.querySelector(".chart");
    if (points.length) return draw(chart, tradeoffOf(points, schemes, x, y, choose.log.checked));
    drawn.delete(chart);
    chart.replaceChildren();
    return null;
  }

  choose.x.addEventListener("change", () => {
    choose.log.checked = figures.axes[choose.x.value].logarithmic;
  });
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  choose.log.checked = figures.axes[choose.x.value].logarithmic;
  return show();
}

// One build

function curvesOf(epochs) {
  const panels = [
    ["loss", "loss", "train", 1],
    ["validation_loss", "loss", "validation", 1],
    ["accuracy", "accuracy %", "train", 100],
    ["validation_accuracy", "accuracy %", "validation", 100],
  ];
  const points = panels.flatMap(([key, panel, images, factor]) =>
    epochs[key].flatMap((value, index) =>
      value === null ? [] : [{ epoch: index + 1, panel, images, value: factor * value }],
    ),
  );
  const specification = withPoints("curves", points);
  specification.columns = window.innerWidth < 800 ? 1 : 2;
  return specification;
}

function confusionOf(counts, labels) {
  const totals = labels.map(() => 0);
  const images = new Map();
  for (const [label, answer, count] of counts) {
    totals[label] += count;
    images.set(`${label} ${answer}`, count);
  }
  const points = labels.flatMap((label, row) =>
    labels.map((answer, column) => {
      const count = images.get(`${row} ${column}`) ?? 0;
      return { label, answer, images: count, share: totals[row] ? (100 * count) / totals[row] : 0 };
    }),
  );
  return withPoints("confusion", points);
}

function setUpBuild(details) {
  const build = figures.builds[Number(details.dataset.build)];
  const chooser = details.querySelector("select[name=confusion]");

  function showConfusion() {
    const number = Number(chooser.value);
    for (const list of details.querySelectorAll(".pairs")) list.hidden = Number(list.dataset.confusion) !== number;
    const chart = details.querySelector(".confusion");
    return chart && draw(chart, confusionOf(build.confusions[number], build.labels));
  }

  let isShown = false;
  function show() {
    if (!details.open || isShown) return null;
    isShown = true;
    const curves = details.querySelector(".curves");
    return Promise.all([curves && draw(curves, curvesOf(build.epochs)), chooser && showConfusion()]);
  }

  if (chooser) chooser.addEventListener("change", showConfusion);
  details.addEventListener("toggle", show);
  return show();
}

function drawAnew() {
  return Promise.all([...drawn].map(([element, specification]) => draw(element, specification)));
}

dark.addEventListener("change", drawAnew);
window.addEventListener("beforeprint", () => {
  printing = true;
  for (const details of document.querySelectorAll("details")) details.open = true;
  drawAnew();
});
window.addEventListener("afterprint", () => {
  printing = false;
  drawAnew();
});

Promise.all([
  ...[...document.querySelectorAll(".tradeoff")].map(setUpTradeoff),
  ...[...document.querySelectorAll("details[data-build]")].map(setUpBuild),
]).then(() => {
  document.documentElement.dataset.drawn = "yes";
});
