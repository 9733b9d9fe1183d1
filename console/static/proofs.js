// The proof inspector: a file is read in the browser, into the text that the form sends.
(function () {
  "use strict";
  var LARGEST = 65536;
  var input = document.getElementById("file");
  var text = document.getElementById("bundle");
  var note = document.getElementById("file-note");
  if (!input || !text) return;

  function read(file) {
    if (!file) return;
    if (file.size > LARGEST) {
      note.textContent = note.dataset.large;
      return;
    }
    file.text().then(function (content) {
      text.value = content;
      note.textContent = note.dataset.read + " " + file.name;
      text.form.requestSubmit();
    });
  }

  input.addEventListener("change", function () {
    read(input.files[0]);
    input.value = "";
  });
  ["dragover", "dragleave", "drop"].forEach(function (name) {
    text.addEventListener(name, function (event) {
      if (!event.dataTransfer || !Array.from(event.dataTransfer.types).includes("Files")) return;
      event.preventDefault();
      text.classList.toggle("dropping", name === "dragover");
      if (name === "drop") read(event.dataTransfer.files[0]);
    });
  });
})();
