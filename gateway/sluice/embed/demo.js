// The switches of the demo page.
const chat = document.getElementById("chat");
document.getElementById("theme").onchange = (event) => {
  chat.dataset.theme = event.target.value;
};
document.getElementById("direction").onchange = (event) => {
  document.documentElement.dir = event.target.value;
};
document.getElementById("language").onchange = (event) => {
  for (const widget of document.querySelectorAll("sluice-chat")) widget.lang = event.target.value;
};
document.getElementById("bubble").onclick = (event) => {
  const bubble = document.createElement("sluice-chat");
  Object.assign(bubble.dataset, chat.dataset, { mode: "bubble", open: "" });
  bubble.lang = chat.lang;
  document.body.append(bubble);
  event.target.disabled = true;
};
