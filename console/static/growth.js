// The growth of the members' logs: data from the page's data attribute, colours from its style sheet.
(function () {
  "use strict";
  var place = document.getElementById("growth-chart");
  if (!place || !window.echarts) return;
  var chart = null;
  var drawn = "";

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // Moments are shown in the page's zone, whatever the browser's own is.
  function clock(values, ms) {
    var text = new Date(ms + values.offset_ms).toISOString();
    var moments = values.series.flatMap(function (entry) { return entry.points.map(function (point) { return point[0]; }); });
    var span = Math.max.apply(null, moments) - Math.min.apply(null, moments);
    if (span < 3600e3) return text.slice(11, 19);
    return span < 86400e3 ? text.slice(11, 16) : text.slice(5, 10) + " " + text.slice(11, 16);
  }

  function tooltip(values, series) {
    var box = document.createElement("div");
    box.className = "chart-tip";
    var head = document.createElement("div");
    head.className = "chart-tip-head";
    head.textContent = series[0].value[2];
    box.appendChild(head);
    series.forEach(function (entry) {
      var line = document.createElement("div");
      line.className = "chart-tip-line";
      var mark = document.createElement("i");
      mark.className = "chart-mark chart-mark-line-" + (entry.seriesIndex % 5);
      var name = document.createElement("span");
      name.textContent = entry.seriesName;
      var value = document.createElement("strong");
      value.textContent = entry.value[1].toLocaleString("en");
      line.append(mark, name, value);
      box.appendChild(line);
    });
    return box;
  }

  function option(values) {
    var text = colour("--cs-chart-text");
    var line = colour("--cs-chart-line");
    var nothing = values.series.length === 0;
    return {
      animationDuration: 250,
      title: {
        show: nothing, text: values.nothing, left: "center", top: "middle",
        textStyle: { color: text, fontSize: 14, fontWeight: 400 },
      },
      aria: { enabled: false },
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { left: 4, right: 16, top: 40, bottom: 4, containLabel: true },
      legend: {
        show: !nothing, top: 0, left: 0, icon: "roundRect", itemWidth: 10, itemHeight: 10, itemGap: 18,
        textStyle: { color: text, fontSize: 12 },
      },
      tooltip: {
        trigger: "axis", className: "chart-tip-frame", padding: 0, borderWidth: 0,
        backgroundColor: colour("--cs-tip-bg"), extraCssText: "", transitionDuration: 0,
        axisPointer: { type: "line", lineStyle: { color: line } },
        formatter: function (series) { return tooltip(values, series); },
      },
      xAxis: {
        type: "time", axisTick: { show: false }, axisLine: { lineStyle: { color: line } }, splitNumber: 8,
        axisLabel: { color: text, fontSize: 11, hideOverlap: true, formatter: function (ms) { return clock(values, ms); } },
        splitLine: { show: false },
      },
      yAxis: {
        type: "value", minInterval: 1, splitLine: { lineStyle: { color: line } },
        axisLabel: { color: text, fontSize: 11, formatter: function (value) { return value.toLocaleString("en"); } },
      },
      series: values.series.map(function (entry, number) {
        var ink = colour("--cs-line-" + (number % 5));
        return {
          id: entry.id, name: entry.name, type: "line", step: "end", data: entry.points,
          symbol: "circle", symbolSize: 5, showSymbol: entry.points.length < 30,
          lineStyle: { width: 2, color: ink }, itemStyle: { color: ink }, emphasis: { focus: "series" },
        };
      }),
    };
  }

  function draw(event) {
    var source = document.getElementById("growth-data");
    if (!source) return;
    // The cards are polled; the chart changes only with its data, or with the colours.
    if (source.dataset.chart === drawn && (!event || event.type === "htmx:after:swap")) return;
    drawn = source.dataset.chart;
    var values = JSON.parse(drawn);
    if (!chart) {
      chart = window.echarts.init(place, null, { renderer: "canvas" });
      new ResizeObserver(function () { chart.resize(); }).observe(place);
    }
    chart.setOption(option(values), { notMerge: true });
    place.dataset.drawn = String(values.series.length);
  }

  document.addEventListener("countersign:theme", draw);
  document.addEventListener("htmx:after:swap", draw);
  draw();
})();
