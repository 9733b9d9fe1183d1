// Runs where the menu ends, before the page is painted: which of its groups are folded. Somebody's
// own choice is kept; a group that nobody chose is folded where the window is too low for all.
(function () {
  "use strict";
  var KEY = "countersign-menu";
  var groups = Array.from(document.querySelectorAll(".nav-group"));
  var menu = document.getElementById("sidebar-menu");
  var beside = window.matchMedia("(min-width: 992px)");
  var chosen = {};
  try {
    chosen = JSON.parse(localStorage.getItem(KEY)) || {};
  } catch (error) {
    /* storage is switched off, or holds something else */
  }

  function holdsThisPage(group) {
    return group.querySelector("[aria-current=page]") !== null;
  }

  function isTooLong() {
    return beside.matches && menu.scrollHeight > menu.clientHeight + 1;
  }

  groups.forEach(function (group) {
    if (chosen[group.dataset.group] === false && !holdsThisPage(group)) group.open = false;
    group.querySelector("summary").addEventListener("click", function () {
      chosen[group.dataset.group] = !group.open; // a click comes before what it does
      try {
        localStorage.setItem(KEY, JSON.stringify(chosen));
      } catch (error) {
        /* it holds for this page only */
      }
    });
  });
  groups.forEach(function (group) {
    if (isTooLong() && !(group.dataset.group in chosen) && !holdsThisPage(group)) group.open = false;
  });
})();
