"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const colors = (chart) => {
    const page = getComputedStyle(document.body);
    const line = getComputedStyle(chart).borderTopColor;
    return {
      "font.color": page.color, "font.family": page.fontFamily,
      "xaxis.gridcolor": line, "yaxis.gridcolor": line, "xaxis.zerolinecolor": page.color, "yaxis.zerolinecolor": line,
      "hoverlabel.bgcolor": page.backgroundColor, "hoverlabel.bordercolor": page.color,
      "hoverlabel.font.color": page.color,
    };
  };
  for (const [id, { figure, series }] of Object.entries(figures)) {
    const chart = document.getElementById(id);
    Plotly.newPlot(chart, figure.data, figure.layout, { displayModeBar: false, responsive: true })
      .then(() => Plotly.relayout(chart, colors(chart)));
    document.addEventListener("themechange", () => Plotly.relayout(chart, colors(chart)));
    const select = document.querySelector(`select[data-chart="${id}"]`);
    select?.addEventListener("change", () => {
      const visible = series.map((name) => name === "worst case" || select.value === "*" || name === select.value);
      Plotly.restyle(chart, { visible });
    });
  }
})();
