// The way to the server: one transport at a time, another where that fails, and again after a while.

import { RtcTransport, SocketTransport } from "./transport.js";

const ORDER = { auto: [SocketTransport, RtcTransport], socket: [SocketTransport], rtc: [RtcTransport] };
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

export class Connection {
  transport; // undefined while there is none
  #wanted = "auto";
  #retries = 0;
  #calls;

  // Calls back: onMessage(message), onPicture(bitmap, stampMs), onStream(MediaStream), onLost().
  constructor(calls) { this.#calls = calls; }

  send(message) { this.transport?.send(message); }

  // Connect, or try again later and say so by `onLost`.
  async keep() {
    try {
      await this.open();
    } catch {
      this.#lost();
    }
  }

  // Connect now; throws an Error for a person to read.
  async open() {
    let problem;
    for (const Transport of ORDER[this.#wanted]) {
      const transport = new Transport({
        onMessage: (message) => transport === this.transport && this.#calls.onMessage(message),
        onPicture: (bitmap, stampMs) => this.#calls.onPicture(bitmap, stampMs),
        onStream: (stream) => this.#calls.onStream(stream),
        onClose: () => transport === this.transport && this.#lost(),
      });
      this.transport = transport;
      try {
        await transport.open();
        this.#retries = 0;
        return;
      } catch (error) {
        transport.close();
        problem = error;
      }
    }
    this.transport = undefined;
    throw new Error(`No connection to the server: ${problem.message}. Is it still running?`);
  }

  // Another kind of transport from now on: "auto", "socket" or "rtc".
  async use(kind) {
    this.#wanted = kind;
    this.close();
    await this.keep();
  }

  close() {
    const before = this.transport;
    this.transport = undefined;
    before?.close();
  }

  #lost() {
    this.transport = undefined;
    this.#calls.onLost();
    const wait = RETRY_MS[Math.min(this.#retries, RETRY_MS.length - 1)];
    this.#retries += 1;
    setTimeout(() => this.transport ?? this.keep(), wait);
  }
}
