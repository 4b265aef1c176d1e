// The page: one element, one state, one stream at a time. Everything that it shows comes from the
// server's messages; everything that a visitor does becomes one message.

import { Connection } from "./connection.js";
import { Face } from "./face.js";
import { Rate, Recorder, Screen } from "./screen.js";
import { Source } from "./source.js";

const EXAMPLES = {
  video: ["a pencil sketch", "neon", "sepia film", "a comic", "ice"],
  text: [
    "a red ball bouncing over a green field", "a blue star circling over the ocean at night",
    "a yellow box swinging over the city at sunset", "a purple triangle hovering in the snow",
    "neon, a green ball bouncing in the desert",
  ],
};
const LABELS = {
  offline: "Offline", connecting: "Connecting", idle: "Ready", starting: "Starting",
  waiting: "In line", live: "Live", paused: "Paused", failed: "Stopped",
};
const START_LABELS = { camera: "Start camera", file: "Choose a video", screen: "Share the screen", text: "Start" };

class Page {
  #root;
  #face;
  #source;
  #connection;
  #onPreset;
  #presets = [];
  #chosen = {};
  #shownPreset = null;
  #settings = { strength: null, steps: null, seed: null, transition: null };
  #granted = null;
  #quality = "";
  #state = "connecting";
  #sent = new Rate();
  #screen;
  #recorder;

  // `onPreset` is told when the settings of another model are to be shown.
  constructor(root, onPreset) {
    this.#root = root;
    this.#onPreset = onPreset;
    this.#face = new Face(root);
    this.#source = new Source(this.#part("input"));
    this.#source.onended = () => this.#fail("The camera is gone. Plug it in and start again.");
    this.#screen = new Screen(this.#part("output"), () => (
      this.#granted !== null && this.#isOn && this.#state !== "starting"));
    this.#recorder = new Recorder(this.#screen.canvas, () => this.#part("prompt").value);
    this.#connection = new Connection({
      onMessage: (message) => this.#take(message),
      onPicture: (bitmap, stampMs) => this.#screen.show(bitmap, bitmap.width, bitmap.height, stampMs),
      onStream: (stream) => this.#screen.pull(stream),
      onLost: () => this.#lost(),
    });
    this.#bind();
    this.#part("prompt").value = EXAMPLES.video[0];
    this.#setLayout(window.matchMedia("(max-width: 720px)").matches ? "single" : "split");
    this.#setSource("camera");
    this.#hintAtHttps();
    this.#connection.keep();
  }

  // What a visitor does

  // Strength, steps, seed and transition, from the controls around this element. What nobody has
  // touched is as the model has it.
  set(name, value) {
    if (this.#settings[name] === value) return;
    this.#settings[name] = value;
    if (name === "transition") return; // which counts with the next prompt
    if (this.#isOn && value !== null && value !== "") this.#change({ [name]: this.#wanted(name) });
  }

  isTouched(name) { return this.#settings[name] !== null; }

  apply(prompt) {
    this.#part("prompt").value = prompt;
    this.#face.markPrompt();
    if (this.#isOn) this.#change({ prompt, over_chunks: this.#wanted("transition") });
  }

  async start() {
    this.#note();
    try {
      if (this.#connection.transport === undefined) await this.#connection.open();
      if (this.#sourceKind === "camera") await this.#source.openCamera(this.#part("device").value);
      if (this.#sourceKind === "screen") await this.#source.openScreen();
      if (this.#sourceKind === "camera") await this.#listDevices();
    } catch (error) {
      this.#fail(error.message);
      return;
    }
    this.#setState("starting");
    this.#connection.send({
      type: "start", preset: this.#preset.name, prompt: this.#part("prompt").value,
      seed: this.#wanted("seed"), steps: this.#wanted("steps"),
      strength: this.#preset.takes_video ? this.#wanted("strength") : null,
    });
  }

  stop() {
    this.#stopRecording();
    this.#connection.send({ type: "stop" });
    this.#source.close();
    this.#setState("idle");
  }

  #pause() {
    const paused = this.#state === "live";
    this.#connection.send({ type: paused ? "pause" : "resume" });
    this.#setState(paused ? "paused" : "live");
  }

  #change(what) {
    this.#note();
    this.#connection.send({ type: "change", ...what });
  }

  // The connection

  #lost() {
    const wasOn = this.#isOn;
    this.#stopRecording();
    this.#source.close();
    this.#setState("offline");
    if (wasOn) this.#note("The connection was lost. Trying again; then press start.", true);
  }

  async #useTransport(kind) {
    if (this.#isOn) this.stop();
    this.#connection.close();
    this.#setState("connecting");
    await this.#connection.use(kind);
  }

  #take(message) {
    switch (message.type) {
      case "offer": this.#offer(message); break;
      case "granted": this.#grant(message); break;
      case "waiting":
        this.#setState("waiting");
        this.#face.cover(`All places are taken. You are number ${message.position} in line; it starts by itself.`);
        break;
      case "figures": this.#figures(message); break;
      case "problem":
        if (message.fatal) this.#fail(message.message);
        else this.#note(message.message, true);
        break;
      case "ended": if (this.#isOn && this.#state !== "starting") this.#fail("The stream has ended."); break;
    }
  }

  #offer(offer) {
    this.#presets = offer.presets;
    this.#fillPresets();
    if (this.#state === "connecting" || this.#state === "offline") this.#setState("idle");
    this.#face.figure("streams", `0/${offer.places}`);
  }

  #grant(granted) {
    const isNew = this.#granted === null;
    this.#quality = ""; // what was asked for is no news
    this.#granted = granted;
    const ratio = granted.width / granted.height;
    this.#root.style.setProperty("--sg-ratio", ratio);
    if (granted.unknown_words.length) {
      this.#note(`The model does not know: ${granted.unknown_words.join(", ")}. It ${granted.knowledge}`);
    }
    this.#face.markPrompt();
    if (!isNew && this.#state !== "starting" && this.#state !== "waiting") return;
    this.#setState("live");
    if (granted.takes_video) this.#send(granted);
  }

  // Pictures out

  #send({ width, height }) {
    const { transport } = this.#connection;
    this.#source.mirrored = this.#isMirrored;
    this.#source.run(width, height, {
      fps: () => transport.fps,
      ready: () => this.#state === "live" && (!transport.wantsPictures || transport.canSend),
      take: (stampMs) => {
        this.#sent.count();
        if (transport.wantsPictures) transport.sendPicture(this.#source.canvas, stampMs);
      },
    });
    if (!transport.wantsPictures) transport.sendTrack(this.#source.canvas.captureStream().getVideoTracks()[0]);
  }

  #figures(figures) {
    const age = (this.#granted?.takes_video ? this.#screen.ageMs : null) ?? figures.age_ms;
    this.#face.figure("fps", this.#screen.fps.toFixed(1));
    this.#face.figure("latency", age === null ? "-" : `${Math.round(age)} ms`);
    this.#face.figure("sent", this.#granted?.takes_video ? this.#sent.perSecond.toFixed(1) : "-");
    this.#face.figure("dropped", String(figures.dropped));
    this.#face.figure("quality", figures.quality);
    this.#face.figure("streams", `${figures.streams}/${figures.places}`);
    if (this.#quality && figures.quality !== this.#quality) {
      this.#note(`The stream goes on with ${figures.quality} (before: ${this.#quality}).`);
    }
    this.#quality = figures.quality;
  }

  // For tests and measurements: when the picture on the screen was taken and shown
  get latest() { return this.#screen.latest; }
  get state() { return this.#state; }
  get granted() { return this.#granted; }
  get presetName() { return this.#preset?.name; }
  get transportKind() { return this.#connection.transport?.kind; }

  // Saving

  #record() {
    if (this.#recorder.isRecording) { this.#stopRecording(); return; }
    try {
      this.#recorder.start();
      this.#face.press("record", true);
    } catch (error) { this.#note(error.message, true); }
  }

  #stopRecording() {
    this.#recorder.stop();
    this.#face.press("record", false);
  }

  // What is seen

  get #isOn() { return ["starting", "waiting", "live", "paused"].includes(this.#state); }
  get #sourceKind() { return this.#root.dataset.source; }
  get #isMirrored() { return this.#sourceKind === "camera" && this.#face.isPressed("mirror"); }
  get #kindOfPreset() { return this.#sourceKind === "text" ? "text" : "video"; }
  get #preset() {
    const fit = this.#presets.filter((preset) => preset.takes_video === (this.#kindOfPreset === "video"));
    return fit.find((preset) => preset.name === this.#chosen[this.#kindOfPreset]) ?? fit[0];
  }

  #wanted(name) {
    const value = this.#settings[name];
    if (value === null || value === "") return null;
    return name === "steps" ? Math.min(value, this.#preset.steps) : value;
  }

  #setState(state) {
    this.#state = state;
    this.#root.dataset.state = state;
    this.#part("state").textContent = LABELS[state];
    const runs = state === "live" || state === "paused";
    for (const name of ["pause", "reset", "snapshot", "record"]) this.#face.button(name).disabled = !runs;
    this.#face.button("stop").disabled = !this.#isOn;
    this.#face.press("pause", state === "paused");
    this.#face.button("pause").querySelector("span").textContent = state === "paused" ? "Go on" : "Pause";
    if (state === "starting") {
      this.#face.cover("Starting...");
      this.#forgetFigures();
      this.#screen.clear();
    }
    if (state === "idle") this.#face.cover("Pictures leave this page only for the server that sent it; nothing is stored.");
    if (!this.#isOn) {
      this.#granted = null;
      this.#forgetFigures();
      for (const name of ["fps", "latency", "sent", "dropped", "quality"]) this.#face.figure(name, "-");
    }
  }

  #forgetFigures() {
    this.#screen.forget();
    this.#sent = new Rate();
  }

  #setSource(kind) {
    if (kind === "text" && this.#presets.length && !this.#presets.some((preset) => !preset.takes_video)) {
      this.#note("This server has no model that draws from words alone.", true);
      return;
    }
    const prompt = this.#part("prompt");
    const before = this.#kindOfPreset;
    this.#root.dataset.source = kind;
    if (before !== this.#kindOfPreset && EXAMPLES[before].includes(prompt.value)) {
      prompt.value = EXAMPLES[this.#kindOfPreset][0];
    }
    for (const tab of this.#root.querySelectorAll(".sg-tabs button")) {
      tab.setAttribute("aria-checked", String(tab.dataset.source === kind));
    }
    this.#part("start-label").textContent = START_LABELS[kind];
    this.#root.querySelector('[data-for="video"]').hidden = kind !== "camera";
    this.#face.button("mirror").hidden = kind !== "camera";
    this.#face.button("layout").hidden = kind === "text";
    this.#fillPresets();
    this.#face.offerPrompts(EXAMPLES[this.#kindOfPreset], (text) => this.apply(text));
    this.#mirrorInput();
  }

  #setLayout(layout) {
    this.#root.dataset.layout = layout;
    this.#face.press("layout", layout === "split");
  }

  #fillPresets() {
    const select = this.#part("preset");
    const fit = this.#presets.filter((preset) => preset.takes_video === (this.#kindOfPreset === "video"));
    select.replaceChildren(...fit.map((preset) => new Option(preset.name, preset.name)));
    if (!this.#preset) return;
    select.value = this.#preset.name;
    select.title = this.#preset.description;
    const { width, height } = this.#preset;
    this.#root.style.setProperty("--sg-shape", `${width} / ${height}`);
    this.#root.style.setProperty("--sg-ratio", width / height);
    if (this.#shownPreset === this.#preset.name) return;
    this.#shownPreset = this.#preset.name;
    this.#onPreset();
  }

  #mirrorInput() { this.#root.querySelector(".sg-in").classList.toggle("is-mirrored", this.#isMirrored); }

  async #listDevices() { this.#face.offerDevices(await Source.devices()); }

  #hintAtHttps() {
    if (window.isSecureContext) return;
    this.#note("This page came over plain HTTP, and browsers give no camera then, except on "
      + "localhost. Start the server with --https, or use a video file or text.");
  }

  #fail(text) {
    this.#connection.send({ type: "stop" });
    this.#stopRecording();
    this.#source.close();
    this.#setState("failed");
    this.#note(text, true);
    this.#face.cover("");
  }

  #note(text, isError) { this.#face.note(text, isError); }
  #part(name) { return this.#face.part(name); }

  #bind() {
    const does = {
      start: () => (this.#sourceKind === "file" ? this.#part("file").click() : this.start()),
      stop: () => this.stop(),
      pause: () => this.#pause(),
      reset: () => this.#connection.send({ type: "reset" }),
      snapshot: () => this.#recorder.snapshot(),
      record: () => this.#record(),
      full: () => this.#face.toggleFull(),
      layout: () => this.#setLayout(this.#root.dataset.layout === "split" ? "single" : "split"),
      mirror: () => {
        this.#face.press("mirror", !this.#face.isPressed("mirror"));
        this.#source.mirrored = this.#isMirrored;
        this.#mirrorInput();
      },
    };
    this.#root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.dataset.do) does[button.dataset.do]();
      else if (button?.dataset.source) this.#switchSource(button.dataset.source);
      else if (event.target.closest(".sg-out.is-full")) this.#face.toggleFull();
    });
    this.#part("prompt-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.apply(this.#part("prompt").value);
    });
    this.#part("prompt").addEventListener("input", () => this.#face.markPrompt());
    this.#part("file").addEventListener("change", async (event) => {
      const [file] = event.target.files;
      event.target.value = "";
      if (!file) return;
      try {
        await this.#source.openFile(file);
        await this.start();
      } catch (error) { this.#fail(error.message); }
    });
    this.#part("device").addEventListener("change", () => this.#again());
    this.#part("preset").addEventListener("change", (event) => {
      this.#chosen[this.#kindOfPreset] = event.target.value;
      this.#fillPresets();
      this.#again();
    });
    this.#part("transport").addEventListener("change", (event) => this.#useTransport(event.target.value));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.#listDevices());
    window.addEventListener("pagehide", () => this.#connection.close());
    window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  }

  #switchSource(kind) {
    if (kind === this.#sourceKind) return;
    if (this.#isOn) this.stop();
    this.#note();
    this.#setSource(kind);
  }

  // Another camera or model: what runs is ended and begun with it.
  #again() {
    if (!this.#isOn) return;
    if (this.#sourceKind === "file") { this.stop(); return; }
    this.#granted = null;
    this.start();
  }
}

export function mount(element, onPreset) {
  window.streamgen = new Page(element.querySelector(".sg"), onPreset);
}
