// Behaviour of the console's pages. No inline handlers: the page's CSP allows this file only.
(function () {
  "use strict";

  // -- Colours ----------------------------------------------------------------------------------

  function showThemeChoice() {
    var chosen = window.countersignTheme.choice();
    document.querySelectorAll("[data-theme-choice]").forEach(function (button) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === chosen));
    });
  }
  document.addEventListener("countersign:theme", showThemeChoice);
  showThemeChoice();

  document.addEventListener("click", function (event) {
    var copy = event.target.closest("[data-copy]");
    if (copy) copyValue(copy);
  });

  // -- The menu: long ones scroll, and the page that is open is to be seen in it -------------------

  var here = document.querySelector(".sidebar .nav-item.active");
  if (here) here.scrollIntoView({ block: "nearest" });

  // -- Copying ----------------------------------------------------------------------------------

  function announce(text) {
    var place = document.getElementById("announcements");
    if (place) place.textContent = text;
  }

  function copyValue(button) {
    if (!navigator.clipboard) return;
    navigator.clipboard.writeText(button.dataset.copy).then(function () {
      button.classList.add("copied");
      announce("Copied");
      setTimeout(function () { button.classList.remove("copied"); }, 1500);
    }, function () { announce("The browser did not allow copying"); });
  }

  // -- Requests under way, and where the keyboard is after a table was replaced -------------------

  var underWay = 0;
  function progress(change) {
    underWay = Math.max(0, underWay + change);
    var line = document.getElementById("progress");
    if (line) line.classList.toggle("busy", underWay > 0);
  }
  // The overview asks for its figures every few seconds: that is no progress to show.
  function isQuiet(event) {
    return event.target.id === "figures" || event.target.id === "live";
  }
  document.addEventListener("htmx:before:request", function (event) {
    if (!isQuiet(event)) progress(1);
  });
  document.addEventListener("htmx:finally:request", function (event) {
    if (!isQuiet(event)) progress(-1);
  });
  document.addEventListener("htmx:after:swap", function () {
    var results = document.getElementById("results");
    var news = results && results.querySelector("[data-announce]");
    if (news) announce(news.dataset.announce);
    if (results && document.activeElement === document.body) {
      results.setAttribute("tabindex", "-1");
      results.focus({ preventScroll: true });
    }
  });

  // -- Live transactions --------------------------------------------------------------------------

  var live = document.getElementById("live");
  if (!live) return;
  var feed = document.getElementById("feed");
  var feedText = feed.querySelector("[data-feed-text]");
  var pause = document.getElementById("pause");
  var empty = document.getElementById("live-empty");
  var held = [];
  var paused = false;
  var state = "waiting";

  function showState() {
    var shown = paused ? "paused" : state;
    feed.dataset.state = shown;
    var words = feedText.dataset[shown];
    if (paused && held.length) words += " (" + held.length + ")";
    if (feedText.textContent !== words) feedText.textContent = words;
  }

  function tidy() {
    var seen = new Set();
    Array.from(live.rows).forEach(function (row) {
      // The page's own rows and the stream may overlap.
      if (seen.has(row.dataset.txid) || seen.size >= Number(live.dataset.rows)) row.remove();
      else seen.add(row.dataset.txid);
    });
    empty.hidden = live.rows.length > 0;
  }

  live.addEventListener("feed", function (event) {
    state = event.detail.data === "connected" ? "live" : "away";
    showState();
  });
  live.addEventListener("signed-out", function () { location.assign("/sign-in"); });
  live.addEventListener("htmx:sse:error", function () { state = "waiting"; showState(); });
  live.addEventListener("htmx:sse:close", function () { state = "waiting"; showState(); });
  live.addEventListener("htmx:sse:before:message", function (event) {
    if (!paused || event.detail.message.event) return;
    event.preventDefault();
    held.push(event.detail.message.data);
    if (held.length > Number(live.dataset.rows)) held.shift();
    showState();
  });
  live.addEventListener("htmx:sse:after:message", tidy);

  // The polled figures bring along how far the listed transactions are on their way to the chain.
  document.addEventListener("htmx:after:swap", function () {
    var states = document.getElementById("live-states");
    if (!states) return;
    states.content.querySelectorAll("[data-for]").forEach(function (fresh) {
      var cell = live.querySelector('[data-state-of="' + fresh.dataset.for + '"]');
      if (cell && cell.innerHTML.trim() !== fresh.innerHTML.trim()) cell.innerHTML = fresh.innerHTML;
    });
    states.remove();
  });

  pause.addEventListener("click", function () {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.querySelector("span").textContent = paused ? pause.dataset.resume : pause.dataset.pause;
    if (!paused) {
      held.forEach(function (row) { live.insertAdjacentHTML("afterbegin", row); });
      held = [];
      tidy();
    }
    showState();
  });
})();
