// The page: one element, one state, one stream at a time. Everything that it shows comes from the
// server's messages; everything that a visitor does becomes one message.

import { Source } from "./source.js";
import { RtcTransport, SocketTransport } from "./transport.js";

const EXAMPLES = {
  video: ["a pencil sketch", "neon", "sepia film", "a comic", "ice"],
  text: [
    "a red ball bouncing over a green field", "a blue star circling over the ocean at night",
    "a yellow box swinging over the city at sunset", "a purple triangle hovering in the snow",
    "neon, a green ball bouncing in the desert",
  ],
};
const SHOWN_SIDE = 512; // pixels: small pictures are enlarged smoothly before they are shown or saved
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const LABELS = {
  offline: "Offline", connecting: "Connecting", idle: "Ready", starting: "Starting",
  waiting: "In line", live: "Live", paused: "Paused", failed: "Stopped",
};
const START_LABELS = { camera: "Start camera", file: "Choose a video", screen: "Share the screen", text: "Start" };

class Page {
  #root;
  #source;
  #transport;
  #transportWanted = "auto";
  #presets = [];
  #chosen = {};
  #settings = { strength: null, steps: null, seed: null };
  #granted = null;
  #state = "connecting";
  #retries = 0;
  #lastDrawn = [];
  #ages = [];
  #sent = [];
  #recorder = null;
  #pulling = 0;
  #latest = null;

  constructor(root) {
    this.#root = root;
    this.#source = new Source(this.#part("input"));
    this.#source.onended = () => this.#fail("The camera is gone. Plug it in and start again.");
    this.#bind();
    this.#part("prompt").value = EXAMPLES.video[0];
    this.#setLayout(window.matchMedia("(max-width: 720px)").matches ? "single" : "split");
    this.#setSource("camera");
    this.#hintAtHttps();
    this.#connect();
  }

  // What a visitor does

  // Strength, steps and seed, from the controls around this element.
  set(name, value) {
    if (this.#settings[name] === value) return;
    this.#settings[name] = value;
    if (this.#isOn && value !== null && value !== "") this.#change({ [name]: this.#wanted(name) });
  }

  apply(prompt) {
    this.#part("prompt").value = prompt;
    this.#markChip();
    if (this.#isOn) this.#change({ prompt });
  }

  async start() {
    this.#note();
    try {
      if (this.#transport === undefined) await this.#connect({ again: false });
      if (this.#sourceKind === "camera") await this.#source.openCamera(this.#part("device").value);
      if (this.#sourceKind === "screen") await this.#source.openScreen();
      if (this.#sourceKind === "camera") await this.#listDevices();
    } catch (error) {
      this.#fail(error.message);
      return;
    }
    this.#setState("starting");
    this.#transport.send({
      type: "start", preset: this.#preset.name, prompt: this.#part("prompt").value,
      seed: this.#wanted("seed"), steps: this.#wanted("steps"),
      strength: this.#preset.takes_video ? this.#wanted("strength") : null,
    });
  }

  stop() {
    this.#stopRecording();
    this.#transport?.send({ type: "stop" });
    this.#source.close();
    this.#setState("idle");
  }

  #pause() {
    const paused = this.#state === "live";
    this.#transport?.send({ type: paused ? "pause" : "resume" });
    this.#setState(paused ? "paused" : "live");
  }

  #change(what) {
    this.#note();
    this.#transport?.send({ type: "change", ...what });
  }

  // The connection

  async #connect({ again = true } = {}) {
    const order = { auto: [SocketTransport, RtcTransport], socket: [SocketTransport], rtc: [RtcTransport] };
    let problem;
    for (const Transport of order[this.#transportWanted]) {
      const transport = new Transport({
        onMessage: (message) => transport === this.#transport && this.#take(message),
        onPicture: (bitmap, stampMs) => this.#show(bitmap, bitmap.width, bitmap.height, stampMs),
        onStream: (stream) => this.#pull(stream),
        onClose: () => transport === this.#transport && this.#lost(),
      });
      this.#transport = transport;
      try {
        await transport.open();
        this.#retries = 0;
        return;
      } catch (error) {
        transport.close();
        problem = error;
      }
    }
    this.#transport = undefined;
    if (again) this.#lost();
    else throw new Error(`No connection to the server: ${problem.message}. Is it still running?`);
  }

  #lost() {
    const wasOn = this.#isOn;
    this.#transport = undefined;
    this.#stopRecording();
    this.#source.close();
    this.#setState("offline");
    if (wasOn) this.#note("The connection was lost. Trying again; then press start.", true);
    const wait = RETRY_MS[Math.min(this.#retries, RETRY_MS.length - 1)];
    this.#retries += 1;
    setTimeout(() => this.#transport ?? this.#connect(), wait);
  }

  async #useTransport(kind) {
    const wasOn = this.#isOn;
    if (wasOn) this.stop();
    this.#transportWanted = kind;
    const before = this.#transport;
    this.#transport = undefined;
    before?.close();
    this.#setState("connecting");
    await this.#connect();
  }

  #take(message) {
    switch (message.type) {
      case "offer": this.#offer(message); break;
      case "granted": this.#grant(message); break;
      case "waiting":
        this.#setState("waiting");
        this.#coverText(`All places are taken. You are number ${message.position} in line; it starts by itself.`);
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
    this.#figure("streams", `0/${offer.places}`);
  }

  #grant(granted) {
    const isNew = this.#granted === null;
    this.#granted = granted;
    const ratio = granted.width / granted.height;
    this.#root.style.setProperty("--sg-ratio", ratio);
    if (granted.unknown_words.length) {
      this.#note(`The model does not know: ${granted.unknown_words.join(", ")}. It ${granted.knowledge}`);
    }
    this.#markChip();
    if (!isNew && this.#state !== "starting" && this.#state !== "waiting") return;
    this.#setState("live");
    if (granted.takes_video) this.#send(granted);
  }

  // Pictures out

  #send({ width, height }) {
    const transport = this.#transport;
    this.#source.mirrored = this.#isMirrored;
    this.#source.run(width, height, {
      fps: () => transport.fps,
      ready: () => this.#state === "live" && (!transport.wantsPictures || transport.canSend),
      take: (stampMs) => {
        this.#count(this.#sent);
        if (transport.wantsPictures) transport.sendPicture(this.#source.canvas, stampMs);
      },
    });
    if (!transport.wantsPictures) transport.sendTrack(this.#source.canvas.captureStream().getVideoTracks()[0]);
  }

  // Pictures in

  #pull(stream) {
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = stream;
    video.play().catch(() => {});
    const run = ++this.#pulling;
    const look = () => {
      if (run !== this.#pulling) return;
      if (this.#isOn && video.videoWidth) this.#show(video, video.videoWidth, video.videoHeight, -1);
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  }

  #show(picture, width, height, stampMs) {
    if (this.#granted === null || !this.#isOn || this.#state === "starting") return;
    const canvas = this.#part("output");
    const factor = Math.max(1, Math.ceil(SHOWN_SIDE / Math.min(width, height)));
    if (canvas.width !== width * factor || canvas.height !== height * factor) {
      canvas.width = width * factor;
      canvas.height = height * factor;
    }
    const context = canvas.getContext("2d", { alpha: false });
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close?.();
    const now = performance.now();
    this.#count(this.#lastDrawn);
    if (stampMs >= 0) {
      this.#ages.push(now - stampMs);
      if (this.#ages.length > 60) this.#ages.shift();
    }
    this.#latest = { stampMs, shownMs: now };
  }

  #count(times) {
    const now = performance.now();
    times.push(now);
    while (times[0] < now - 3000) times.shift();
  }

  #rate(times) {
    const now = performance.now();
    const recent = times.filter((time) => time > now - 3000);
    return recent.length < 2 ? 0 : ((recent.length - 1) * 1000) / (recent.at(-1) - recent[0]);
  }

  #figures(figures) {
    const sorted = [...this.#ages].sort((a, b) => a - b);
    const age = sorted.length && this.#granted?.takes_video ? sorted[sorted.length >> 1] : figures.age_ms;
    this.#figure("fps", this.#rate(this.#lastDrawn).toFixed(1));
    this.#figure("latency", age === null ? "-" : `${Math.round(age)} ms`);
    this.#figure("sent", this.#granted?.takes_video ? this.#rate(this.#sent).toFixed(1) : "-");
    this.#figure("dropped", String(figures.dropped));
    this.#figure("streams", `${figures.streams}/${figures.places}`);
  }

  // For tests and measurements: when the picture on the screen was taken and shown
  get latest() { return this.#latest; }
  get state() { return this.#state; }
  get granted() { return this.#granted; }
  get transportKind() { return this.#transport?.kind; }

  // Saving

  #snapshot() {
    this.#part("output").toBlob((blob) => this.#save(blob, "png"), "image/png");
  }

  #record() {
    if (this.#recorder) { this.#stopRecording(); return; }
    const type = ["video/mp4;codecs=avc1.42E01E", "video/webm;codecs=vp9", "video/webm"]
      .find((each) => window.MediaRecorder?.isTypeSupported(each));
    if (!type) { this.#note("This browser cannot record. Use: streamgen run -o film.mp4", true); return; }
    const parts = [];
    this.#recorder = new MediaRecorder(this.#part("output").captureStream(), { mimeType: type, videoBitsPerSecond: 8e6 });
    this.#recorder.ondataavailable = (event) => parts.push(event.data);
    this.#recorder.onstop = () => this.#save(new Blob(parts, { type }), type.startsWith("video/mp4") ? "mp4" : "webm");
    this.#recorder.start(1000);
    this.#press("record", true);
  }

  #stopRecording() {
    this.#recorder?.stop();
    this.#recorder = null;
    this.#press("record", false);
  }

  #save(blob, ending) {
    const link = document.createElement("a");
    const words = this.#part("prompt").value.toLowerCase().match(/[a-z0-9]+/g) ?? ["streamgen"];
    link.href = URL.createObjectURL(blob);
    link.download = `${words.slice(0, 6).join("-")}.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // What is seen

  get #isOn() { return ["starting", "waiting", "live", "paused"].includes(this.#state); }
  get #sourceKind() { return this.#root.dataset.source; }
  get #isMirrored() { return this.#sourceKind === "camera" && this.#button("mirror").getAttribute("aria-pressed") === "true"; }
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
    for (const name of ["pause", "reset", "snapshot", "record"]) this.#button(name).disabled = !runs;
    this.#button("stop").disabled = !this.#isOn;
    this.#press("pause", state === "paused");
    this.#button("pause").querySelector("span").textContent = state === "paused" ? "Go on" : "Pause";
    if (state === "starting") {
      this.#coverText("Starting...");
      this.#latest = null;
      this.#lastDrawn = []; this.#ages = []; this.#sent = [];
      const canvas = this.#part("output");
      canvas.getContext("2d", { alpha: false }).clearRect(0, 0, canvas.width, canvas.height);
    }
    if (state === "idle") this.#coverText("Pictures leave this page only for the server that sent it; nothing is stored.");
    if (!this.#isOn) {
      this.#granted = null;
      this.#latest = null;
      this.#lastDrawn = []; this.#ages = []; this.#sent = [];
      for (const name of ["fps", "latency", "sent", "dropped"]) this.#figure(name, "-");
    }
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
    this.#button("mirror").hidden = kind !== "camera";
    this.#button("layout").hidden = kind === "text";
    this.#fillPresets();
    this.#fillChips();
    this.#mirrorInput();
  }

  #setLayout(layout) {
    this.#root.dataset.layout = layout;
    this.#press("layout", layout === "split");
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
  }

  #fillChips() {
    this.#part("chips").replaceChildren(...EXAMPLES[this.#kindOfPreset].map((text) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.textContent = text;
      chip.onclick = () => this.apply(text);
      return chip;
    }));
    this.#markChip();
  }

  #markChip() {
    const prompt = this.#part("prompt").value;
    for (const chip of this.#part("chips").children) chip.classList.toggle("is-on", chip.textContent === prompt);
  }

  #mirrorInput() { this.#root.querySelector(".sg-in").classList.toggle("is-mirrored", this.#isMirrored); }

  async #listDevices() {
    const select = this.#part("device");
    const chosen = select.value;
    const devices = await Source.devices();
    select.replaceChildren(new Option("Default camera", ""), ...devices.map(
      (device, index) => new Option(device.label || `Camera ${index + 1}`, device.deviceId)));
    select.value = devices.some((device) => device.deviceId === chosen) ? chosen : "";
  }

  #hintAtHttps() {
    if (window.isSecureContext) return;
    this.#note("This page came over plain HTTP, and browsers give no camera then, except on "
      + "localhost. Start the server with --https, or use a video file or text.");
  }

  #fail(text) {
    this.#transport?.send({ type: "stop" });
    this.#stopRecording();
    this.#source.close();
    this.#setState("failed");
    this.#note(text, true);
    this.#coverText("");
  }

  #note(text = "", isError = false) {
    const note = this.#part("note");
    note.textContent = text;
    note.hidden = !text;
    note.classList.toggle("is-error", isError);
  }

  #coverText(text) { this.#part("cover-text").textContent = text; }
  #figure(name, text) { this.#root.querySelector(`[data-figure="${name}"]`).textContent = text; }
  #part(name) { return this.#root.querySelector(`[data-part="${name}"]`); }
  #button(name) { return this.#root.querySelector(`.sg-bar [data-do="${name}"]`); }
  #press(name, isPressed) { this.#button(name).setAttribute("aria-pressed", String(isPressed)); }

  #toggleFull() {
    const out = this.#root.querySelector(".sg-out");
    if (document.fullscreenElement) document.exitFullscreen();
    else if (out.requestFullscreen) out.requestFullscreen().catch(() => out.classList.toggle("is-full"));
    else out.classList.toggle("is-full"); // phones that have no full screen for elements
  }

  #bind() {
    const does = {
      start: () => (this.#sourceKind === "file" ? this.#part("file").click() : this.start()),
      stop: () => this.stop(),
      pause: () => this.#pause(),
      reset: () => this.#transport?.send({ type: "reset" }),
      snapshot: () => this.#snapshot(),
      record: () => this.#record(),
      full: () => this.#toggleFull(),
      layout: () => this.#setLayout(this.#root.dataset.layout === "split" ? "single" : "split"),
      mirror: () => {
        this.#press("mirror", this.#button("mirror").getAttribute("aria-pressed") !== "true");
        this.#source.mirrored = this.#isMirrored;
        this.#mirrorInput();
      },
    };
    this.#root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.dataset.do) does[button.dataset.do]();
      else if (button?.dataset.source) this.#switchSource(button.dataset.source);
      else if (event.target.closest(".sg-out.is-full")) this.#toggleFull();
    });
    this.#part("prompt-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.apply(this.#part("prompt").value);
    });
    this.#part("prompt").addEventListener("input", () => this.#markChip());
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
    window.addEventListener("pagehide", () => this.#transport?.close());
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

export function mount(element) {
  window.streamgen = new Page(element.querySelector(".sg"));
}
