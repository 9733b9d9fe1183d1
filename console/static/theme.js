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
  // Here, not in console.js: that one is deferred, and a click before it had run would be lost.
  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-theme-choice]");
    if (button) window.countersignTheme.choose(button.dataset.themeChoice);
  });
  apply();
})();
