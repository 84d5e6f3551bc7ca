"use strict";
const status = document.querySelector("[role=status]");
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      status.textContent = "copied";
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1500);
    } catch {
      const words = button.parentElement.querySelector("code, bdi");
      getSelection().selectAllChildren(words);
    }
  });
}
const made = document.querySelector(".made time");
const ago = (time) => {
  const minutes = Math.floor((Date.now() - Date.parse(time.dateTime)) / 60000);
  const [count, unit] =
    minutes < 60 ? [minutes, "min"] : minutes < 2880 ? [Math.floor(minutes / 60), "h"] : [Math.floor(minutes / 1440), "days"];
  return minutes < 1 ? "just now" : `${count} ${unit} ago`;
};
const tell = () => {
  for (const time of document.querySelectorAll("time")) {
    time.title = new Date(time.dateTime).toString();
    let span = time.nextElementSibling;
    if (!span?.classList.contains("ago")) {
      span = document.createElement("span");
      span.className = "ago";
      time.after(span);
    }
    span.textContent = ` (${ago(time)})`;
  }
  const old = Date.now() - Date.parse(made.dateTime) > 3600000;
  document.querySelector(".stale").hidden = !old;
  document.body.classList.toggle("old", old);
};
tell();
setInterval(tell, 30000);
