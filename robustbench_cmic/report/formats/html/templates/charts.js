"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const SAVED_WIDTH = 900;
  const PIXELS = 3;  // of a PNG, for each of the figure's

  const painted = ({ ink, line, ground, family }) => ({
    "font.color": ink, "font.family": family,
    "xaxis.gridcolor": line, "yaxis.gridcolor": line, "xaxis.zerolinecolor": ink, "yaxis.zerolinecolor": line,
    "hoverlabel.bgcolor": ground, "hoverlabel.bordercolor": ink, "hoverlabel.font.color": ink,
  });
  const ofPage = (chart) => {
    const page = getComputedStyle(document.body);
    const line = getComputedStyle(chart).borderTopColor;
    return painted({ ink: page.color, line, ground: page.backgroundColor, family: page.fontFamily });
  };
  // A saved figure is for paper, whatever the theme.
  const onPaper = painted({ ink: "#1d2127", line: "#d9dce1", ground: "#ffffff", family: "sans-serif" });

  /** How high a chart is with its key: rows of names as wide as the longest. */
  const height = (chart, data, width) => {
    const names = data.filter((trace) => trace.visible !== false).map((trace) => trace.name.length);
    const columns = Math.max(1, Math.floor((width - 80) / (60 + 7 * Math.max(1, ...names))));
    return Number(chart.dataset.height) + 19 * Math.ceil(names.length / columns);
  };

  /** The figure as it is shown now, as SVG in a data URL. */
  const picture = async (chart, { data, layout }) => {
    const shown = data.map((trace, place) => ({ ...trace, visible: chart.data[place].visible ?? true }));
    const size = { width: SAVED_WIDTH, height: height(chart, shown, SAVED_WIDTH) };
    const paper = structuredClone({ ...layout, ...size, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff" });
    for (const [path, value] of Object.entries(onPaper)) {
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
  const save = async (chart, figure, format, file, status) => {
    const [url, size] = await picture(chart, figure);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await blobs[format](url, size));
    link.download = `${file.replace(/[^\w.-]+/g, "-")}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    status.textContent = `Saved ${link.download}`;
  };

  for (const [id, { figure, curves }] of Object.entries(figures)) {
    const chart = document.getElementById(id);
    const frame = chart.closest(".figure");
    const fit = (data) => { chart.style.height = `${height(chart, data, chart.clientWidth)}px`; };
    fit(figure.data);
    Plotly.newPlot(chart, figure.data, figure.layout, { displayModeBar: false, responsive: true })
      .then(() => Plotly.relayout(chart, ofPage(chart)));
    document.addEventListener("themechange", () => Plotly.relayout(chart, ofPage(chart)));
    frame.querySelector(".legend")?.addEventListener("change", () => {
      const chosen = (kind) =>
        new Set([...frame.querySelectorAll(`[data-kind=${kind}] input:checked`)].map((input) => input.value));
      const [models, attacks] = [chosen("model"), chosen("attack")];
      const visible = curves.map(([model, attack]) => models.has(model) && attacks.has(attack));
      Plotly.restyle(chart, { visible }).then(() => {
        fit(chart.data);
        return Plotly.Plots.resize(chart);
      });
    });
    for (const button of frame.querySelectorAll("[data-save]")) {
      const status = button.parentElement.querySelector("[role=status]");
      button.addEventListener("click", () => save(chart, figure, button.dataset.save, frame.dataset.file, status));
    }
  }
})();
