// Where pictures come from: a camera, a file, the screen. Always a <video>, of which a part of the
// shape of the stream is drawn on a canvas of the stream's size.

const IDEAL = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

const REASONS = {
  NotAllowedError: "The browser was not allowed to use it. Allow it in the address bar and try again.",
  NotFoundError: "There is none. Plug one in, or take a video file.",
  NotReadableError: "Another program is using it. Close that program and try again.",
  OverconstrainedError: "It is not there any more. Choose another one.",
};

export class Source {
  mirrored = true;
  #video;
  #canvas = document.createElement("canvas");
  #context = this.#canvas.getContext("2d", { alpha: false });
  #url;
  #running = 0;

  constructor(video) { this.#video = video; }

  get canvas() { return this.#canvas; }

  async openCamera(deviceId) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give a camera only to pages over HTTPS or on localhost. Start the "
        + "server with --https, or take a video file.");
    }
    const video = deviceId ? { ...IDEAL, deviceId: { exact: deviceId } } : { ...IDEAL, facingMode: "user" };
    await this.#play(await this.#ask(() => navigator.mediaDevices.getUserMedia({ video, audio: false }), "camera"));
  }

  async openScreen() {
    if (!navigator.mediaDevices?.getDisplayMedia) throw new Error("This browser does not share its screen.");
    await this.#play(await this.#ask(() => navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 30 } }), "screen"));
  }

  async openFile(file) {
    this.close();
    this.#url = URL.createObjectURL(file);
    this.#video.srcObject = null;
    this.#video.src = this.#url;
    this.#video.loop = true;
    await this.#video.play().catch(() => {
      throw new Error(`${file.name}: the browser cannot play this file. Take an MP4 or a WebM.`);
    });
  }

  static async devices() {
    if (!navigator.mediaDevices?.enumerateDevices) return [];
    const all = await navigator.mediaDevices.enumerateDevices();
    return all.filter((device) => device.kind === "videoinput");
  }

  // Call `take(stampMs)` for each new picture, drawn on `canvas`, at most `fps()` times a second.
  run(width, height, { fps, ready, take }) {
    this.#canvas.width = width;
    this.#canvas.height = height;
    const run = ++this.#running;
    let due = 0;
    const look = (now, facts) => {
      if (run !== this.#running) return;
      const interval = 1000 / fps();
      if (now >= due - 4 && ready()) {
        due = Math.max(due + interval, now - interval / 2);
        this.#draw();
        take(facts?.captureTime ?? now);
      }
      this.#next(look);
    };
    this.#next(look);
  }

  halt() { this.#running += 1; }

  close() {
    this.halt();
    this.#video.srcObject?.getTracks().forEach((track) => track.stop());
    this.#video.srcObject = null;
    this.#video.removeAttribute("src");
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = undefined;
  }

  onended = () => {};

  #next(look) {
    if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(look);
    else requestAnimationFrame((now) => look(now));
  }

  #draw() {
    const { videoWidth: w, videoHeight: h } = this.#video;
    const { width, height } = this.#canvas;
    if (!w || !h) return;
    const scale = Math.max(width / w, height / h);
    const cutW = width / scale, cutH = height / scale;
    this.#context.imageSmoothingQuality = "high";
    this.#context.setTransform(this.mirrored ? -1 : 1, 0, 0, 1, this.mirrored ? width : 0, 0);
    this.#context.drawImage(this.#video, (w - cutW) / 2, (h - cutH) / 2, cutW, cutH, 0, 0, width, height);
  }

  async #ask(open, what) {
    try {
      return await open();
    } catch (error) {
      throw new Error(`No ${what}: ${REASONS[error.name] ?? error.message}`);
    }
  }

  async #play(stream) {
    this.close();
    const [track] = stream.getVideoTracks();
    track.onended = () => this.onended();
    this.#video.srcObject = stream;
    await this.#video.play();
  }
}
