// What a visitor sees of the stream: pictures as they come, how often and how late, and a copy of
// them as a file.

const SHOWN_SIDE = 512; // pixels: small pictures are enlarged smoothly before they are shown or saved
const RATE_MS = 3000;
const AGES = 60;

// How often something happened a second, over the last three.
export class Rate {
  #times = [];

  count() {
    const now = performance.now();
    this.#times.push(now);
    while (this.#times[0] < now - RATE_MS) this.#times.shift();
  }

  get perSecond() {
    const now = performance.now();
    const recent = this.#times.filter((time) => time > now - RATE_MS);
    return recent.length < 2 ? 0 : ((recent.length - 1) * 1000) / (recent.at(-1) - recent[0]);
  }
}

export class Screen {
  latest = null; // when the picture that is seen was taken and shown
  #canvas;
  #isWanted;
  #drawn = new Rate();
  #ages = [];
  #pulling = 0;

  // `isWanted()` says whether pictures are shown now; others are let go.
  constructor(canvas, isWanted) {
    this.#canvas = canvas;
    this.#isWanted = isWanted;
  }

  get canvas() { return this.#canvas; }
  get fps() { return this.#drawn.perSecond; }

  // The median age of the last pictures, or null where their age is not known.
  get ageMs() {
    const sorted = [...this.#ages].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  // `stampMs` is when the picture was taken, -1 where that is not known.
  show(picture, width, height, stampMs) {
    if (!this.#isWanted()) return;
    const canvas = this.#canvas;
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
    this.#drawn.count();
    if (stampMs >= 0) {
      this.#ages.push(now - stampMs);
      if (this.#ages.length > AGES) this.#ages.shift();
    }
    this.latest = { stampMs, shownMs: now };
  }

  // Show what a MediaStream brings; the one before is not looked at any more.
  pull(stream) {
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = stream;
    video.play().catch(() => {});
    const run = ++this.#pulling;
    const look = () => {
      if (run !== this.#pulling) return;
      if (video.videoWidth) this.show(video, video.videoWidth, video.videoHeight, -1);
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  }

  forget() {
    this.latest = null;
    this.#drawn = new Rate();
    this.#ages = [];
  }

  clear() {
    const { width, height } = this.#canvas;
    this.#canvas.getContext("2d", { alpha: false }).clearRect(0, 0, width, height);
  }
}

// Snapshots and films of a canvas, saved under the words of the prompt.
export class Recorder {
  #canvas;
  #prompt;
  #media = null;

  constructor(canvas, prompt) {
    this.#canvas = canvas;
    this.#prompt = prompt;
  }

  get isRecording() { return this.#media !== null; }

  snapshot() {
    this.#canvas.toBlob((blob) => this.#save(blob, "png"), "image/png");
  }

  start() {
    const type = ["video/mp4;codecs=avc1.42E01E", "video/webm;codecs=vp9", "video/webm"]
      .find((each) => window.MediaRecorder?.isTypeSupported(each));
    if (!type) throw new Error("This browser cannot record. Use: streamgen run -o film.mp4");
    const parts = [];
    this.#media = new MediaRecorder(this.#canvas.captureStream(), { mimeType: type, videoBitsPerSecond: 8e6 });
    this.#media.ondataavailable = (event) => parts.push(event.data);
    this.#media.onstop = () => this.#save(new Blob(parts, { type }), type.startsWith("video/mp4") ? "mp4" : "webm");
    this.#media.start(1000);
  }

  stop() {
    this.#media?.stop();
    this.#media = null;
  }

  #save(blob, ending) {
    const link = document.createElement("a");
    const words = this.#prompt().toLowerCase().match(/[a-z0-9]+/g) ?? ["streamgen"];
    link.href = URL.createObjectURL(blob);
    link.download = `${words.slice(0, 6).join("-")}.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
}
