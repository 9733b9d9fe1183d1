// The overview's chart: data from the page's data attribute, colours from its style sheet.
(function () {
  "use strict";
  var place = document.getElementById("volume-chart");
  if (!place || !window.echarts) return;
  var chart = null;

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function data() {
    var source = document.getElementById("chart-data");
    return source ? JSON.parse(source.dataset.chart) : null;
  }

  // Tooltips as elements, not as HTML with style attributes: the page's CSP forbids those.
  function tooltip(values, series) {
    var box = document.createElement("div");
    box.className = "chart-tip";
    var head = document.createElement("div");
    head.className = "chart-tip-head";
    head.textContent = series[0].axisValueLabel;
    box.appendChild(head);
    series.forEach(function (entry) {
      var line = document.createElement("div");
      line.className = "chart-tip-line";
      var mark = document.createElement("i");
      mark.className = "chart-mark chart-mark-" + entry.seriesId;
      var name = document.createElement("span");
      name.textContent = entry.seriesName;
      var value = document.createElement("strong");
      value.textContent = entry.seriesId === "amount"
        ? entry.value.toLocaleString("en", { minimumFractionDigits: 2 }) + " " + values.currency
        : entry.value.toLocaleString("en");
      line.append(mark, name, value);
      box.appendChild(line);
    });
    return box;
  }

  function option(values) {
    var text = colour("--cs-chart-text");
    var line = colour("--cs-chart-line");
    var font = getComputedStyle(document.body).fontFamily;
    function bars(id, name, numbers, radius) {
      return {
        id: id, name: name, type: "bar", stack: "count", data: numbers, barMaxWidth: 18,
        barCategoryGap: "28%", itemStyle: { color: colour("--cs-chart-" + id), borderRadius: radius },
      };
    }
    var nothing = values.approved.concat(values.declined).every(function (count) { return count === 0; });
    return {
      animationDuration: 250,
      title: {
        show: nothing, text: values.names.nothing, left: "center", top: "middle",
        textStyle: { color: text, fontSize: 14, fontWeight: 400 },
      },
      aria: { enabled: false },
      textStyle: { fontFamily: font },
      grid: { left: 4, right: 4, top: 40, bottom: 4, containLabel: true },
      legend: {
        show: !nothing, top: 0, left: 0, icon: "roundRect", itemWidth: 10, itemHeight: 10, itemGap: 18,
        textStyle: { color: text, fontSize: 12 },
        data: [values.names.approved, values.names.declined, values.names.amount],
      },
      tooltip: {
        trigger: "axis", className: "chart-tip-frame", padding: 0, borderWidth: 0,
        backgroundColor: colour("--cs-tip-bg"), extraCssText: "", transitionDuration: 0,
        axisPointer: { type: "shadow", shadowStyle: { color: colour("--cs-chart-shadow") } },
        formatter: function (series) { return tooltip(values, series); },
      },
      xAxis: {
        type: "category", data: values.labels, axisTick: { show: false },
        axisLine: { lineStyle: { color: line } },
        axisLabel: { color: text, fontSize: 11, hideOverlap: true },
      },
      yAxis: [
        { type: "value", minInterval: 1, splitLine: { lineStyle: { color: line } }, axisLabel: { color: text, fontSize: 11 } },
        { type: "value", show: !nothing, splitLine: { show: false }, axisLabel: { color: text, fontSize: 11, formatter: shorter } },
      ],
      series: [
        bars("approved", values.names.approved, values.approved, 0),
        bars("declined", values.names.declined, values.declined, [3, 3, 0, 0]),
        {
          id: "amount", name: values.names.amount, type: "line", yAxisIndex: 1, z: 1,
          data: nothing ? [] : values.amount,
          areaStyle: { color: colour("--cs-chart-amount"), opacity: 0.14 },
          smooth: 0.3, smoothMonotone: "x", symbol: "none",
          lineStyle: { width: 1.75, color: colour("--cs-chart-amount") },
          itemStyle: { color: colour("--cs-chart-amount") },
        },
      ],
    };
  }

  function shorter(value) {
    if (value >= 1e6) return value / 1e6 + "M";
    return value >= 1e3 ? value / 1e3 + "k" : String(value);
  }

  function draw() {
    var values = data();
    if (!values) return;
    if (!chart) {
      chart = window.echarts.init(place, null, { renderer: "canvas" });
      new ResizeObserver(function () { chart.resize(); }).observe(place);
    }
    chart.setOption(option(values), { replaceMerge: [] });
    place.dataset.drawn = String(values.labels.length);
  }

  document.addEventListener("countersign:theme", draw);
  document.addEventListener("htmx:after:swap", draw);
  draw();
})();
