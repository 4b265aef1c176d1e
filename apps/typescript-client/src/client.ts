/** Live streams of a StreamGen server. What goes over the wire is in messages.ts. */

import { IN_FLIGHT } from "./messages.js";
import type {
  Change, Command, Failure, Figures, GrantedSettings, HeldSnapshot, Load, PresetOffer, Report,
  SessionChange, SessionFacts, Start,
} from "./messages.js";

export * from "./messages.js";

const STAMP_BYTES = 8;

/** A picture from the server, as a JPEG. */
export interface ClientFrame {
  jpeg: ArrayBuffer;
  /** Place in a stream that is made from text, or the time that `show` was given, milliseconds. */
  ptsMs: number;
}

/** The server said no. */
export class RefusedError extends Error {
  constructor(
    message: string,
    /** Whether the same may work later. */
    readonly retryable: boolean,
    readonly retryAfterS: number | null,
  ) {
    super(message);
    this.name = "RefusedError";
  }
}

/** The server cannot be reached any more. */
export class ConnectionLostError extends Error {
  override name = "ConnectionLostError";
}

export interface ClientOptions {
  token?: string;
  /** For where there is none of that name. */
  WebSocket?: typeof WebSocket;
}

/** One server. Holds no connection; sessions do. */
export class Client {
  readonly #base: URL;
  readonly #options: ClientOptions;

  constructor(url: string, options: ClientOptions = {}) {
    this.#base = new URL(url);
    this.#options = options;
  }

  presets(): Promise<PresetOffer[]> {
    return this.#json("GET", "presets");
  }

  sessions(): Promise<SessionFacts[]> {
    return this.#json("GET", "sessions");
  }

  load(): Promise<Load> {
    return this.#json("GET", "load");
  }

  change(session: string, change: SessionChange): Promise<GrantedSettings> {
    return this.#json("PATCH", `sessions/${encodeURIComponent(session)}`, JSON.stringify(change));
  }

  async end(session: string): Promise<void> {
    await this.#ask("DELETE", `sessions/${encodeURIComponent(session)}`);
  }

  /** Where a session is; with `leave` it ends when what is finished has been shown. */
  async snapshot(session: string, leave = false): Promise<ArrayBuffer> {
    const path = `sessions/${encodeURIComponent(session)}/snapshot?leave=${leave}`;
    return (await this.#ask("POST", path)).arrayBuffer();
  }

  /** Begin a stream, or go on from a snapshot; resolves when the server has granted it. */
  async open(start: Omit<Start, "type" | "snapshot">, snapshot?: ArrayBuffer): Promise<Session> {
    const held = snapshot === undefined
      ? null
      : (await this.#json<HeldSnapshot>("POST", "snapshots", snapshot)).snapshot;
    const url = new URL("/streamgen/socket", this.#base);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#options.token !== undefined) url.searchParams.set("token", this.#options.token);
    const socket = new (this.#options.WebSocket ?? WebSocket)(url);
    const session = new Session(socket);
    await session.begin({ type: "start", ...start, snapshot: held });
    return session;
  }

  async #json<T>(method: string, path: string, body?: BodyInit): Promise<T> {
    return (await (await this.#ask(method, path, body)).json()) as T;
  }

  async #ask(method: string, path: string, body?: BodyInit): Promise<Response> {
    const headers = new Headers();
    if (this.#options.token !== undefined) {
      headers.set("authorization", `Bearer ${this.#options.token}`);
    }
    if (typeof body === "string") headers.set("content-type", "application/json");
    let response: Response;
    try {
      response = await fetch(new URL(`/streamgen/${path}`, this.#base), {
        method, headers, ...(body === undefined ? {} : { body }),
      });
    } catch (error) {
      throw new ConnectionLostError(`no server answers at ${this.#base}: ${error}`);
    }
    if (!response.ok) throw await refusalOf(response);
    return response;
  }
}

/** One stream: an async iterable of pictures. Made by `Client.open`. */
export class Session implements AsyncIterable<ClientFrame> {
  /** How the stream did over the last second, as the server sees it. */
  figures: Figures | null = null;
  /** In the server's line before the stream began. */
  position = 0;
  /** How often the stream went on in another process of the server. */
  numMoves = 0;
  readonly #socket: WebSocket;
  readonly #frames: ClientFrame[] = [];
  readonly #changed: (() => void)[] = [];
  #granted: GrantedSettings | null = null;
  #numOnTheWay = 0;
  #hasEnded = false;
  #error: Error | null = null;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", (event: MessageEvent<string | ArrayBuffer>) => {
      if (typeof event.data === "string") this.#hear(JSON.parse(event.data) as Report);
      else this.#take(event.data);
      this.#wake();
    });
    socket.addEventListener("close", (event) => {
      if (!this.#hasEnded) this.#end(closed(event));
    });
    socket.addEventListener("error", () => {
      if (!this.#hasEnded) this.#end(new ConnectionLostError("the server cannot be reached"));
    });
  }

  /** What the stream is now. */
  get granted(): GrantedSettings {
    if (this.#granted === null) throw new Error("the stream has not begun");
    return this.#granted;
  }

  /** For `Client.open`: ask for the stream and wait until it is granted. */
  async begin(start: Start): Promise<void> {
    if (this.#socket.readyState === this.#socket.CONNECTING) {
      this.#socket.addEventListener("open", () => this.#say(start), { once: true });
    } else this.#say(start);
    while (this.#granted === null) {
      this.#check();
      if (this.#hasEnded) throw new ConnectionLostError("the stream ended before it began");
      await this.#next();
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ClientFrame, void, void> {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined) {
        this.#say({ type: "shown" });
        yield frame;
        continue;
      }
      this.#check();
      if (this.#hasEnded) return;
      await this.#next();
    }
  }

  /** Give a JPEG to be restyled; resolves when there is room for the next one. */
  async show(jpeg: Uint8Array, capturedMs: number): Promise<void> {
    const message = new Uint8Array(STAMP_BYTES + jpeg.length);
    new DataView(message.buffer).setFloat64(0, capturedMs, true);
    message.set(jpeg, STAMP_BYTES);
    this.#numOnTheWay += 1;
    this.#socket.send(message);
    while (this.#numOnTheWay >= IN_FLIGHT && !this.#hasEnded) await this.#next();
  }

  /** Draw otherwise from the next chunk on; `granted` says so when it is so. */
  change(change: Omit<Change, "type">): void {
    this.#say({ type: "change", ...change });
  }

  pause(): void {
    this.#say({ type: "pause" });
  }

  resume(): void {
    this.#say({ type: "resume" });
  }

  /** Begin anew, as the stream is now. */
  reset(): void {
    this.#say({ type: "reset" });
  }

  /** End the stream; twice does no harm. */
  close(): void {
    if (!this.#hasEnded) this.#say({ type: "stop" });
    this.#end(null);
    this.#socket.close();
  }

  #hear(report: Report): void {
    switch (report.type) {
      case "granted": this.#granted = report; break;
      case "waiting": this.position = report.position; break;
      case "figures": this.figures = report; break;
      case "taken": this.#numOnTheWay = Math.max(0, this.#numOnTheWay - 1); break;
      case "moved": this.numMoves += 1; break;
      case "problem":
        this.#error = new RefusedError(report.message, report.retryable, report.retry_after_s);
        this.#hasEnded ||= report.fatal;
        break;
      case "ended": this.#hasEnded = true; break;
      case "offer": break;
      default: {
        const unknown: never = report; // a message of a newer server
        void unknown;
      }
    }
  }

  #take(data: ArrayBuffer): void {
    const stampMs = new DataView(data).getFloat64(0, true);
    this.#frames.push({
      jpeg: data.slice(STAMP_BYTES),
      ptsMs: stampMs >= 0 ? stampMs : -1 - stampMs,
    });
  }

  #say(command: Command): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.send(JSON.stringify(command));
  }

  #end(error: Error | null): void {
    this.#hasEnded = true;
    this.#error ??= error;
    this.#wake();
  }

  /** Throws what went wrong, once. */
  #check(): void {
    const error = this.#error;
    this.#error = null;
    if (error !== null) throw error;
  }

  #next(): Promise<void> {
    return new Promise((resolve) => this.#changed.push(resolve));
  }

  #wake(): void {
    for (const resolve of this.#changed.splice(0)) resolve();
  }
}

function closed(event: CloseEvent): Error {
  // RFC 6455's registry: 1012 service restart, 1013 try again later
  if (event.code === 1012 || event.code === 1013) {
    return new RefusedError(`the server closed: ${event.reason}`, true, 1);
  }
  return new ConnectionLostError(`the server is gone (${event.code}) ${event.reason}`);
}

async function refusalOf(response: Response): Promise<RefusedError> {
  const text = await response.text();
  try {
    const failure = JSON.parse(text) as Failure;
    return new RefusedError(failure.message, failure.retryable, failure.retry_after_s);
  } catch {
    return new RefusedError(`${response.status}: ${text.slice(0, 300)}`, response.status === 503, null);
  }
}
