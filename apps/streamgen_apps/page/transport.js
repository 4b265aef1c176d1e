// Two ways to the server, with one face:
//   open()            resolves when messages can be sent
//   send(message)     a JSON message
//   sendPicture(...)  a picture, where `wantsPictures` is true; else `track` is sent by itself
//   close()
// Calls back: onMessage(message), onPicture(bitmap, stampMs), onStream(MediaStream), onClose().

const IN_FLIGHT = 2;
const HEARTBEAT_MS = 1000;
const CONNECT_MS = 6000;

function late(promise, ms, what) {
  return Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(what)), ms))]);
}

// Pictures are coded beside each other, so that a later one may be finished before an earlier one,
// which then comes too late.
class Order {
  #begun = 0;
  #finished = 0;

  begin() { return ++this.#begun; }

  finish(number) {
    if (number < this.#finished) return false;
    this.#finished = number;
    return true;
  }
}

export class SocketTransport {
  kind = "socket";
  wantsPictures = true;
  fps = 30;
  #socket;
  #onTheWay = 0;
  #sent = new Order();
  #shown = new Order();

  constructor(calls) { this.calls = calls; }

  async open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/streamgen/socket`);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    await late(new Promise((yes, no) => {
      socket.onopen = yes;
      socket.onclose = () => no(new Error("no WebSocket to the server"));
    }), CONNECT_MS, "the server did not answer");
    socket.onmessage = (event) => this.#take(event.data);
    socket.onclose = () => this.calls.onClose();
  }

  get canSend() {
    return this.#socket?.readyState === WebSocket.OPEN && this.#onTheWay < IN_FLIGHT;
  }

  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  async sendPicture(canvas, stampMs) {
    this.#onTheWay += 1;
    const number = this.#sent.begin();
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    const jpeg = await blob?.arrayBuffer();
    const isOpen = this.#socket?.readyState === WebSocket.OPEN;
    if (!jpeg || !isOpen || !this.#sent.finish(number)) { this.#onTheWay -= 1; return; }
    const data = new Uint8Array(8 + jpeg.byteLength);
    new DataView(data.buffer).setFloat64(0, stampMs, true);
    data.set(new Uint8Array(jpeg), 8);
    this.#socket.send(data);
  }

  close() {
    if (!this.#socket) return;
    this.#socket.onclose = this.#socket.onmessage = null;
    this.#socket.close();
  }

  async #take(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "taken") {
        this.#onTheWay = Math.max(0, this.#onTheWay - 1);
        this.fps = message.fps;
      } else {
        this.calls.onMessage(message);
      }
      return;
    }
    const stampMs = new DataView(data).getFloat64(0, true);
    const number = this.#shown.begin();
    try {
      const blob = new Blob([new Uint8Array(data, 8)], { type: "image/jpeg" });
      const bitmap = await createImageBitmap(blob);
      if (this.#shown.finish(number)) this.calls.onPicture(bitmap, stampMs);
      else bitmap.close();
    } finally {
      this.send({ type: "shown" });
    }
  }
}

export class RtcTransport {
  kind = "rtc";
  wantsPictures = false;
  fps = 30;
  canSend = false;
  #connection;
  #channel;
  #sender;
  #heart;

  constructor(calls) { this.calls = calls; }

  async open() {
    if (!window.RTCPeerConnection) throw new Error("this browser has no WebRTC");
    const connection = new RTCPeerConnection();
    this.#connection = connection;
    this.#channel = connection.createDataChannel("messages");
    const transceiver = connection.addTransceiver("video", { direction: "sendrecv" });
    this.#sender = transceiver.sender;
    connection.ontrack = (event) => this.calls.onStream(new MediaStream([event.track]));
    this.#channel.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "taken") this.fps = message.fps;
      else this.calls.onMessage(message);
    };
    const opened = new Promise((yes) => { this.#channel.onopen = yes; });
    await connection.setLocalDescription(await connection.createOffer());
    await late(new Promise((yes) => {
      if (connection.iceGatheringState === "complete") yes();
      connection.onicegatheringstatechange = () => connection.iceGatheringState === "complete" && yes();
    }), CONNECT_MS, "no address for WebRTC");
    const { sdp, type } = connection.localDescription;
    const answer = await fetch("/streamgen/rtc", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sdp, type }),
    });
    if (!answer.ok) throw new Error(`WebRTC: ${await answer.text()}`);
    await connection.setRemoteDescription(await answer.json());
    await late(opened, CONNECT_MS, "WebRTC found no way to the server");
    this.#channel.onclose = () => this.calls.onClose();
    this.#heart = setInterval(() => this.send({ type: "shown" }), HEARTBEAT_MS);
  }

  send(message) {
    if (this.#channel?.readyState === "open") this.#channel.send(JSON.stringify(message));
  }

  async sendTrack(track) {
    if (track) track.contentHint = "detail";
    await this.#sender.replaceTrack(track);
    const parameters = this.#sender.getParameters();
    parameters.degradationPreference = "maintain-resolution";
    if (parameters.encodings?.length) parameters.encodings[0].maxBitrate = 4_000_000;
    await this.#sender.setParameters(parameters).catch(() => {});
  }

  close() {
    clearInterval(this.#heart);
    if (this.#channel) this.#channel.onclose = null;
    this.#connection?.close();
  }
}
