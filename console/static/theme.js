// Runs before the first paint: light, dark, or as the system says.
(function () {
  "use strict";
  var KEY = "countersign-theme";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function choice() {
    try {
      return localStorage.getItem(KEY) || "auto";
    } catch (error) {
      return "auto"; // storage is switched off
    }
  }

  function apply() {
    var chosen = choice();
    var theme = chosen === "auto" ? (dark.matches ? "dark" : "light") : chosen;
    document.documentElement.setAttribute("data-bs-theme", theme);
    document.dispatchEvent(new CustomEvent("countersign:theme", { detail: { chosen: chosen, theme: theme } }));
  }

  window.countersignTheme = {
    choice: choice,
    choose: function (value) {
      try {
        localStorage.setItem(KEY, value);
      } catch (error) {
        /* it holds for this page only */
      }
      apply();
    },
  };
  dark.addEventListener("change", apply);
  apply();
})();
