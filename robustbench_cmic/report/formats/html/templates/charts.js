"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const SAVED_WIDTH = 900;
  const STEP = 700;  // milliseconds of an animation
  const PIXELS = 3;  // of a PNG, for each of the figure's

  const painted = (layout, { ink, line, ground, family }) => {
    const axes = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
    return {
      "font.color": ink, "font.family": family,
      ...Object.fromEntries(axes.flatMap((axis) =>
        [[`${axis}.gridcolor`, line], [`${axis}.zerolinecolor`, axis.startsWith("x") ? ink : line]])),
      "hoverlabel.bgcolor": ground, "hoverlabel.bordercolor": ink, "hoverlabel.font.color": ink,
    };
  };
  const ofPage = (chart) => {
    const page = getComputedStyle(document.body);
    const line = getComputedStyle(chart).borderTopColor;
    return painted(chart.layout, { ink: page.color, line, ground: page.backgroundColor, family: page.fontFamily });
  };
  // A saved figure is for paper, whatever the theme.
  const paperColors = { ink: "#1d2127", line: "#d9dce1", ground: "#ffffff", family: "sans-serif" };

  /** How high a chart is with its key: rows of names as wide as the longest. */
  const height = (chart, data, width) => {
    const named = data.filter((trace) => trace.visible !== false && trace.showlegend !== false);
    const names = named.map((trace) => trace.name.length);
    const columns = Math.max(1, Math.floor((width - 80) / (60 + 7 * Math.max(1, ...names))));
    return Number(chart.dataset.height) + 19 * Math.ceil(names.length / columns);
  };

  /** The figure as it is shown now, as SVG in a data URL. */
  const picture = async (chart) => {
    const { data, layout } = chart;
    const shown = data.map((trace) => ({ ...trace, visible: trace.visible ?? true }));
    const size = { width: SAVED_WIDTH, height: height(chart, shown, SAVED_WIDTH) };
    const paper = structuredClone({ ...layout, ...size, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff" });
    for (const [path, value] of Object.entries(painted(layout, paperColors))) {
      const keys = path.split(".");
      const last = keys.pop();
      keys.reduce((part, key) => (part[key] ??= {}), paper)[last] = value;
    }
    return [await Plotly.toImage({ data: shown, layout: paper }, { format: "svg", ...size }), size];
  };
  const blobs = {
    svg: async (url) => new Blob([decodeURIComponent(url.slice(url.indexOf(",") + 1))], { type: "image/svg+xml" }),
    png: async (url, { width, height }) => {
      const image = new Image();
      image.src = url;
      await image.decode();
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [PIXELS * width, PIXELS * height];
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      return new Promise((done) => canvas.toBlob(done, "image/png"));
    },
  };
  const save = async (chart, format, file, status) => {
    const [url, size] = await picture(chart);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await blobs[format](url, size));
    link.download = `${file.replace(/[^\w.-]+/g, "-")}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    status.textContent = `Saved ${link.download}`;
  };

  /** An animation: a slider for its steps, and a button that goes through them. */
  const animate = (chart, frame, { traces, steps }) => {
    const slider = frame.querySelector("input[type=range]");
    const play = frame.querySelector("[data-play]");
    let timer = null;
    const show = () => {
      const { label, x, y, texts } = steps[slider.value];
      frame.querySelector("output").textContent = label;
      slider.setAttribute("aria-valuetext", label);
      const titles = Object.fromEntries(texts.map((text, place) => [`annotations[${place}].text`, text]));
      Plotly.update(chart, { x, y }, titles, traces);
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    slider.addEventListener("input", () => { stop(); show(); });
    play.addEventListener("click", () => {
      if (timer !== null) { stop(); return; }
      if (slider.value === slider.max) { slider.value = 0; show(); }
      play.textContent = "Pause";
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show();
        if (slider.value === slider.max) stop();
      }, STEP);
    });
  };

  for (const [id, { figure, curves, frames }] of Object.entries(figures)) {
    const chart = document.getElementById(id);
    const frame = chart.closest(".figure");
    const fit = (data) => { chart.style.height = `${height(chart, data, chart.clientWidth)}px`; };
    let drawn = false;
    const draw = () => {
      if (drawn || chart.closest("details:not([open])")) return;  // folded: drawn when it is opened
      drawn = true;
      fit(figure.data);
      Plotly.newPlot(chart, figure.data, figure.layout, { displayModeBar: false, responsive: true })
        .then(() => Plotly.relayout(chart, ofPage(chart)));
      document.addEventListener("themechange", () => Plotly.relayout(chart, ofPage(chart)));
      if (frames) animate(chart, frame, frames);
    };
    draw();
    for (let fold = chart.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      fold.addEventListener("toggle", draw);
    }
    frame.querySelector(".legend")?.addEventListener("change", () => {
      const chosen = (kind) =>
        new Set([...frame.querySelectorAll(`[data-kind=${kind}] input:checked`)].map((input) => input.value));
      const [models, attacks] = [chosen("model"), chosen("attack")];
      const visible = curves.map(([model, attack]) => models.has(model) && (attack === "" || attacks.has(attack)));
      Plotly.restyle(chart, { visible }).then(() => {
        fit(chart.data);
        return Plotly.Plots.resize(chart);
      });
    });
    for (const button of frame.querySelectorAll("[data-save]")) {
      const status = button.parentElement.querySelector("[role=status]");
      button.addEventListener("click", () => save(chart, button.dataset.save, frame.dataset.file, status));
    }
  }
})();
