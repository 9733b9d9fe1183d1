// The PIN pad of the virtual POS: its keys write into the field above it. Without script the field does.
"use strict";
{
  const field = document.getElementById("pin");
  const pad = document.querySelector(".pin-pad");
  if (field && pad) {
    pad.hidden = false;
    pad.addEventListener("click", (event) => {
      const key = event.target.closest("[data-pin]");
      if (!key) return;
      const what = key.dataset.pin;
      if (what === "clear") field.value = "";
      else if (what === "back") field.value = field.value.slice(0, -1);
      else if (field.value.length < 12) field.value += what;
    });
  }
}
