// The page's parts by their names, and what is written on them. Knows no stream and no server.

export class Face {
  #root;

  constructor(root) { this.#root = root; }

  part(name) { return this.#root.querySelector(`[data-part="${name}"]`); }
  button(name) { return this.#root.querySelector(`.sg-bar [data-do="${name}"]`); }
  isPressed(name) { return this.button(name).getAttribute("aria-pressed") === "true"; }
  press(name, isPressed) { this.button(name).setAttribute("aria-pressed", String(isPressed)); }
  figure(name, text) {
    const place = this.#root.querySelector(`[data-figure="${name}"]`);
    place.textContent = place.title = text;
  }
  cover(text) { this.part("cover-text").textContent = text; }

  note(text = "", isError = false) {
    const note = this.part("note");
    note.textContent = text;
    note.hidden = !text;
    note.classList.toggle("is-error", isError);
  }

  // Prompts to choose from; the one that is in the box is marked.
  offerPrompts(prompts, choose) {
    this.part("chips").replaceChildren(...prompts.map((text) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.textContent = text;
      chip.onclick = () => choose(text);
      return chip;
    }));
    this.markPrompt();
  }

  markPrompt() {
    const prompt = this.part("prompt").value;
    for (const chip of this.part("chips").children) chip.classList.toggle("is-on", chip.textContent === prompt);
  }

  offerDevices(devices) {
    const select = this.part("device");
    const chosen = select.value;
    select.replaceChildren(new Option("Default camera", ""), ...devices.map(
      (device, index) => new Option(device.label || `Camera ${index + 1}`, device.deviceId)));
    select.value = devices.some((device) => device.deviceId === chosen) ? chosen : "";
  }

  toggleFull() {
    const out = this.#root.querySelector(".sg-out");
    if (document.fullscreenElement) document.exitFullscreen();
    else if (out.requestFullscreen) out.requestFullscreen().catch(() => out.classList.toggle("is-full"));
    else out.classList.toggle("is-full"); // phones that have no full screen for elements
  }
}
